// Package grants holds the grants of a portal: those it may listen for, as
// their entry, and those it may dial for, as their exit.
//
// A Set is the rules alone, without clock or socket; a Keeper runs one, tells
// what begins and ends, and judges what a peer asks for.
package grants

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"maps"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// moveTime is how long what runs under a removed grant waits for another of
// the same pair, if the server does not say earlier that there is none: a
// renamed forward is a removal and a new grant right behind it. Nothing new is
// admitted meanwhile.
const moveTime = time.Second

// maxHeld bounds the grants of one portal, however many a server puts.
const maxHeld = 16384

// Pair is what a forward joins, whatever the grant says beside it: a grant
// that is replaced by another of the same pair changes nothing for what runs.
// The portals are named without their keys: who changes his key has grants for
// both for a while, and goes on.
type Pair struct {
	Entry, Exit    string
	Listen, Target endpoint.Endpoint
	Proxy          grant.Proxy
}

// PairOf returns the Pair of a permission: those of p and q are equal exactly
// when p.SamePair(q).
func PairOf(p grant.Permission) Pair {
	return Pair{p.Entry.Name, p.Exit.Name, p.Listen, p.Target, p.Proxy}
}

// Kind is what has happened to a pair.
type Kind uint8

// The kinds of change.
const (
	Begin Kind = iota + 1 // there is a valid grant now
	Renew                 // another grant or stamp carries it on, or other keys are named
	End                   // no valid grant is left: cut what runs
)

// Change tells what has happened to a pair. Grant is the one that counts from
// here on, or the last that did.
type Change struct {
	Kind  Kind
	Grant grant.Grant
	// Before is the one that counted until now. Only in Renew.
	Before grant.Grant
	// IDs are all the ids under which streams of the pair may run. Not in Begin.
	IDs    []wire.GrantID
	Reason wire.Reason // only in End
}

// Set holds grants. The time is told by the caller, and never falls. A Set is
// not safe for concurrent use.
type Set struct {
	self   identity.ID
	own    []identity.KeyHash // of this portal: the one in use first
	policy ed25519.PublicKey

	stamp []ed25519.PublicKey // of the server connected last
	// completed is the highest policy version of which every grant was here, as the
	// policy key signed it. Until there is one, no grant is above it. It never falls.
	completed wire.GrantsComplete
	complete  bool // completed is such a version
	missed    bool // a grant of the connection of now was not taken
	pairs     map[Pair]*pair
	ids       map[wire.GrantID]Pair // of every id in a pair's held or ids
	count     int                   // of all held
	moved     bool                  // there are times that no Tick has seen
	// removed are grants of completed, or above it, that the server has taken back. No
	// server brings one again, until a higher version is complete.
	removed  map[wire.GrantID]bool
	refusals []Refusal // oldest first
}

type held struct {
	grant     grant.Grant
	confirmed bool // put by the server on the connection of now
	ahead     bool // never put, but shown by an entry that is ahead of us

	asked, next time.Time // what changes has answered last, and when
}

// pair is what is held for one forward, and what runs of it.
type pair struct {
	held map[wire.GrantID]*held // valid or not

	running bool
	current grant.Grant           // the one that counts while it runs
	id      wire.GrantID          // of current
	keys    []identity.KeyHash    // of the other portal, named by valid grants; in order
	ids     map[wire.GrantID]bool // all that counted since it began to run

	// Set while it runs and its last grant was removed: when it ends unless
	// another comes, and why.
	leaving time.Time
	reason  wire.Reason
}

// none is completed before there is a version: nothing is above it.
var none = wire.GrantsComplete{Version: math.MaxUint64}

// NewSet returns an empty Set of the portal self, whose permissions policy
// signs.
func NewSet(self identity.Peer, policy ed25519.PublicKey) *Set {
	return &Set{
		self: self.ID, own: []identity.KeyHash{self.Key}, policy: policy, completed: none,
		pairs: make(map[Pair]*pair), ids: make(map[wire.GrantID]Pair), removed: make(map[wire.GrantID]bool),
	}
}

// Connected begins a new connection to a server, whose stamps are signed by
// one of the keys. What is held stays until Complete.
func (s *Set) Connected(stamp []ed25519.PublicKey) {
	s.stamp, s.missed = stamp, false
	for _, p := range s.pairs {
		for _, h := range p.held {
			h.confirmed = false
		}
	}
}

// Put takes a grant that the server has sent. One of an older policy than was
// complete here, which was not among its grants, was taken back or never was: no
// server may bring it again. The error is a *Refused, and is kept among the
// Refusals.
func (s *Set) Put(now time.Time, encoded []byte) ([]Change, error) {
	g, err := s.check(encoded)
	if err == nil && !s.hold(g, held{grant: g, confirmed: true}) {
		err = refuse(wire.ReasonBusy, "grant %q: this portal holds %d grants already, no more are taken", g.Forward, maxHeld)
	}
	if err != nil {
		s.missed = s.missed || reasonOf(err) != wire.ReasonNotGranted && reasonOf(err) != wire.ReasonGrantRemoved
		s.refused(now, g, "", err)
		return nil, err
	}
	s.forgive(g)
	return s.settle(now, PairOf(g.Permission)), nil
}

// check reads a grant that the server has sent and says why it is not taken.
func (s *Set) check(encoded []byte) (grant.Grant, error) {
	g, err := grant.Parse(encoded)
	if err != nil {
		return g, refuse(wire.ReasonProtocol, "read grant: %v", err)
	}
	if !s.ours(g.Permission) {
		return g, refuse(wire.ReasonNotGranted, "grant %q joins %s and %s: neither is this portal with its key of now", g.Forward, g.Entry.Name, g.Exit.Name)
	}
	if r := s.verify(g); r != wire.ReasonNone {
		return g, refuse(r, "grant %q: %v: the policy key or the stamp key is not the one this portal trusts, or somebody has altered it", g.Forward, r)
	}
	if s.removed[g.ID()] {
		return g, refuse(wire.ReasonGrantRemoved, "grant %q of policy version %d was taken back here: %s", g.Forward, g.Version, anew)
	}
	if key, known := s.ids[g.ID()]; s.complete && g.Version < s.completed.Version && (!known || s.pairs[key].held[g.ID()] == nil) {
		return g, refuse(wire.ReasonGrantRemoved, "grant %q is of policy version %d, and version %d, which was complete here, did not have it: %s", g.Forward, g.Version, s.completed.Version, anew)
	}
	return g, nil
}

// anew says what brings back what was taken back by mistake, or by a thief.
const anew = "have all permissions signed anew (netport-server policy apply --anew, or in strict mode policy sign and install --anew)"

// ours reports whether this portal has part in a permission, with one of its
// keys.
func (s *Set) ours(p grant.Permission) bool {
	return s.is(p.Entry) || s.is(p.Exit)
}

func (s *Set) is(p grant.Party) bool {
	return p.Name == s.self.Name && slices.Contains(s.own, p.Key)
}

// Own sets the keys of this portal: the one that it proves itself with now, and
// those that it is about to, or did a moment ago. What was granted to another is
// not given up by that.
func (s *Set) Own(now time.Time, keys ...identity.KeyHash) (changes []Change) {
	s.own = slices.Clone(keys)
	for key := range s.pairs {
		changes = append(changes, s.settle(now, key)...)
	}
	return changes
}

// hold keeps h, in place of what it knows of the same id.
func (s *Set) hold(g grant.Grant, h held) bool {
	id, key := g.ID(), PairOf(g.Permission)
	p := s.pairs[key]
	if p == nil || p.held[id] == nil {
		if s.count >= maxHeld {
			return false
		}
		s.count++
	}
	if p == nil {
		p = &pair{held: make(map[wire.GrantID]*held), ids: make(map[wire.GrantID]bool)}
		s.pairs[key] = p
	}
	p.held[id] = &h
	s.ids[id] = key
	s.moved = true
	return true
}

// Remove takes a grant back. What runs under it ends with the next Complete,
// or after moveTime, if no other grant carries it on.
func (s *Set) Remove(now time.Time, id wire.GrantID, reason wire.Reason) []Change {
	s.takenBack(id)
	key, known := s.ids[id]
	if !known || s.pairs[key].held[id] == nil {
		return nil
	}
	p := s.pairs[key]
	delete(p.held, id)
	s.count--
	if reason == wire.ReasonNone {
		reason = wire.ReasonGrantRemoved
	}
	if _, some := s.best(now, p); !some && p.running {
		p.leaving, p.reason = now.Add(moveTime), reason
		s.moved = true
		return nil
	}
	return s.settle(now, key)
}

// takenBack notes a grant that is not to come again.
func (s *Set) takenBack(id wire.GrantID) {
	if len(s.removed) < maxHeld {
		s.removed[id] = true
	}
}

// Complete says that every grant of a policy version is here: those that the
// server of now has not put are gone. A version that the policy key has not signed is
// none. One below one that was complete is a server that has lost its memory, or was
// given another: nothing that was taken back comes back by it.
// The error is a *Refused about the version, and is kept among the Refusals; the changes
// are made all the same.
func (s *Set) Complete(now time.Time, m wire.GrantsComplete) ([]Change, error) {
	version, err := m.Version, s.checkVersion(m)
	switch {
	case err != nil:
		s.refused(now, grant.Grant{Permission: grant.Permission{Version: version}}, "", err)
		version = s.completed.Version
	case s.missed && s.complete: // not every grant is here
		version = s.completed.Version
	case !s.missed:
		if !s.complete || version > s.completed.Version {
			clear(s.removed) // none of them is above version
		}
		s.completed, s.complete = m, true
		s.forgiveVersions()
	}
	var changes []Change
	for key, p := range s.pairs {
		for id, h := range p.held {
			if !h.confirmed && !(h.ahead && h.grant.Version > version) {
				delete(p.held, id)
				s.count--
				if s.complete && !s.missed && h.grant.Version >= s.completed.Version {
					s.takenBack(id)
				}
			}
		}
		if !p.leaving.IsZero() {
			p.leaving = now
		}
		changes = append(changes, s.settle(now, key)...)
	}
	return changes, err
}

// checkVersion says why a version that the server tells of does not count.
func (s *Set) checkVersion(m wire.GrantsComplete) error {
	switch {
	case m.Version != 0 && !m.SignedBy(s.policy):
		return refuse(wire.ReasonBadSignature, "the server says that its policy is of version %d, and the policy key has not signed that", m.Version)
	case s.complete && m.Version < s.completed.Version:
		return refuse(wire.ReasonGrantRemoved, "the server's policy version is %d, and version %d was complete here: it works with an old state; have the policy applied there until its version is above", m.Version, s.completed.Version)
	}
	return nil
}

// Tick finds what has begun or ended by time alone, and returns when to call
// again; the zero time is never.
func (s *Set) Tick(now time.Time) (changes []Change, next time.Time) {
	s.moved = false
	for key, p := range s.pairs {
		changes = append(changes, s.settle(now, key)...)
		times := []time.Time{p.leaving}
		for _, h := range p.held {
			times = append(times, h.changes(now))
		}
		for _, at := range times {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return changes, next
}

// changes returns when the grant may begin or cease to hold. Hours take a while to
// work out; a clock that was set has them worked out anew.
func (h *held) changes(now time.Time) time.Time {
	if h.asked.IsZero() || now.Before(h.asked) || !now.Before(h.next) {
		h.asked, h.next = now, h.grant.Next(now)
	}
	return h.next
}

// settle looks at what is held for one pair and says what that changes.
func (s *Set) settle(now time.Time, key Pair) []Change {
	p := s.pairs[key]
	best, some := s.best(now, p)
	if some {
		p.leaving = time.Time{}
	}
	keys := s.keysOf(now, p)
	var change []Change
	switch {
	case some && !p.running:
		p.running = true
		p.count(best)
		change = []Change{{Kind: Begin, Grant: best}}
	case some && (best.ID() != p.id || !sameStamp(best, p.current) || !slices.Equal(keys, p.keys)):
		before := p.current
		p.count(best)
		change = []Change{{Kind: Renew, Grant: best, Before: before, IDs: slices.Collect(maps.Keys(p.ids))}}
	case !some && p.running && !now.Before(p.leaving):
		change = []Change{{Kind: End, Grant: p.current, IDs: slices.Collect(maps.Keys(p.ids)), Reason: p.why(now)}}
		for id := range p.ids {
			if p.held[id] == nil {
				delete(s.ids, id)
			}
		}
		p.running, p.current, p.id, p.leaving = false, grant.Grant{}, wire.GrantID{}, time.Time{}
		clear(p.ids)
	}
	p.keys = keys
	if !p.running && len(p.held) == 0 {
		delete(s.pairs, key)
	}
	return change
}

// count makes g the grant that counts.
func (p *pair) count(g grant.Grant) {
	p.current, p.id = g, g.ID()
	p.ids[p.id] = true
}

func sameStamp(a, b grant.Grant) bool { return a.From.Equal(b.From) && a.Until.Equal(b.Until) }

// why says why a pair that has no valid grant ends.
func (p *pair) why(now time.Time) wire.Reason {
	if !p.leaving.IsZero() {
		return p.reason
	}
	reason := wire.ReasonGrantRemoved
	for _, h := range p.held { // what is still held has ended by itself
		if r := h.grant.Valid(now); reason != wire.ReasonOutsideHours {
			reason = r
		}
	}
	return reason
}

// best returns the grant of a pair that counts, of those valid now: one that
// names the key which this portal proves itself with, of the newest policy, that
// lasts longest.
func (s *Set) best(now time.Time, p *pair) (best grant.Grant, some bool) {
	for _, h := range p.held {
		if h.grant.Valid(now) == wire.ReasonNone && (!some || s.better(h.grant, best)) {
			best, some = h.grant, true
		}
	}
	return best, some
}

func (s *Set) better(a, b grant.Grant) bool {
	if x, y := s.inUse(a.Permission), s.inUse(b.Permission); x != y {
		return x
	}
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	return a.Ends().After(b.Ends())
}

// inUse reports whether a permission names the key in use of this portal.
func (s *Set) inUse(p grant.Permission) bool {
	own := p.Exit
	if p.Exit.Name != s.self.Name {
		own = p.Entry
	}
	return own.Key == s.own[0]
}

// otherParty returns the other portal of a permission.
func (s *Set) otherParty(p grant.Permission) grant.Party {
	if p.Exit.Name == s.self.Name {
		return p.Entry
	}
	return p.Exit
}

// keysOf returns the keys of the other portal of a pair that valid grants name.
func (s *Set) keysOf(now time.Time, p *pair) (keys []identity.KeyHash) {
	for _, h := range p.held {
		if key := s.otherParty(h.grant.Permission).Key; h.grant.Valid(now) == wire.ReasonNone && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	sort.Slice(keys, func(i, j int) bool { return bytes.Compare(keys[i][:], keys[j][:]) < 0 })
	return keys
}

func (s *Set) verify(g grant.Grant) wire.Reason {
	return g.Verify(grant.Keys{Policy: []ed25519.PublicKey{s.policy}, Stamp: s.stamp})
}

// Forwards returns a grant of each pair, in the order of Held: the one that counts
// now, or else one that may come to.
func (s *Set) Forwards() []grant.Grant {
	list := make([]grant.Grant, 0, len(s.pairs))
	for _, p := range s.pairs {
		g, some := p.current, p.running
		for _, h := range p.held {
			if !p.running && (!some || s.better(h.grant, g)) {
				g, some = h.grant, true
			}
		}
		list = append(list, g)
	}
	sortGrants(list)
	return list
}

// Held returns all grants, valid or not, in the order of their forwards'
// names.
func (s *Set) Held() []grant.Grant {
	list := make([]grant.Grant, 0, s.count)
	for _, p := range s.pairs {
		for _, h := range p.held {
			list = append(list, h.grant)
		}
	}
	sortGrants(list)
	return list
}

func sortGrants(list []grant.Grant) {
	// sort.Slice, for slices.SortFunc is compiled anew for each type: 20 kB for grants.
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.Forward, b.Forward), cmp.Compare(a.Entry.Name, b.Entry.Name),
			cmp.Compare(a.Listen.String(), b.Listen.String()), cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Version, b.Version)) < 0
	})
}
