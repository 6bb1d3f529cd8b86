// Package grants holds the grants of a portal: those it may listen for, as
// their entry, and those it may dial for, as their exit.
//
// A Set is the rules alone, without clock or socket; a Keeper runs one, tells
// what begins and ends, and judges what a peer asks for.
package grants

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"maps"
	"math"
	"slices"
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
type Pair struct {
	Entry, Exit    grant.Party
	Listen, Target endpoint.Endpoint
	Proxy          grant.Proxy
}

// PairOf returns the Pair of a permission: those of p and q are equal exactly
// when p.SamePair(q).
func PairOf(p grant.Permission) Pair {
	return Pair{p.Entry, p.Exit, p.Listen, p.Target, p.Proxy}
}

// Kind is what has happened to a pair.
type Kind uint8

// The kinds of change.
const (
	Begin Kind = iota + 1 // there is a valid grant now
	Renew                 // another grant, or another stamp, carries it on
	End                   // no valid grant is left: cut what runs
)

// Change tells what has happened to a pair. Grant is the one that counts from
// here on, or the last that did.
type Change struct {
	Kind  Kind
	Grant grant.Grant
	// IDs are all the ids under which streams of the pair may run. Only in End.
	IDs    []wire.GrantID
	Reason wire.Reason // only in End
}

// Set holds grants. The time is told by the caller, and never falls. A Set is
// not safe for concurrent use.
type Set struct {
	self   identity.Peer
	policy ed25519.PublicKey

	stamp []ed25519.PublicKey // of the server connected last
	// completed is the last policy version of which every grant is here. Until
	// there is one, no grant is above it.
	completed uint64
	complete  bool // completed is such a version
	pairs     map[Pair]*pair
	ids       map[wire.GrantID]Pair // of every id in a pair's held or ids
	count     int                   // of all held
	moved     bool                  // there are times that no Tick has seen
	// removed are grants above completed that the server has taken back.
	removed map[wire.GrantID]bool
}

type held struct {
	grant     grant.Grant
	confirmed bool // put by the server on the connection of now
	ahead     bool // never put, but shown by an entry that is ahead of us
}

// pair is what is held for one forward, and what runs of it.
type pair struct {
	held map[wire.GrantID]*held // valid or not

	running bool
	current grant.Grant           // the one that counts while it runs
	ids     map[wire.GrantID]bool // all that counted since it began to run

	// Set while it runs and its last grant was removed: when it ends unless
	// another comes, and why.
	leaving time.Time
	reason  wire.Reason
}

// NewSet returns an empty Set of the portal self, whose permissions policy
// signs.
func NewSet(self identity.Peer, policy ed25519.PublicKey) *Set {
	return &Set{
		self: self, policy: policy, completed: math.MaxUint64,
		pairs: make(map[Pair]*pair), ids: make(map[wire.GrantID]Pair), removed: make(map[wire.GrantID]bool),
	}
}

// Connected begins a new connection to a server, whose stamps are signed by
// one of the keys. What is held stays until Complete.
func (s *Set) Connected(stamp []ed25519.PublicKey) {
	s.stamp = stamp
	for _, p := range s.pairs {
		for _, h := range p.held {
			h.confirmed = false
		}
	}
}

// Put takes a grant that the server has sent.
func (s *Set) Put(now time.Time, encoded []byte) ([]Change, error) {
	g, err := grant.Parse(encoded)
	if err != nil {
		return nil, fmt.Errorf("read grant: %w", err)
	}
	if !g.Entry.Is(s.self) && !g.Exit.Is(s.self) {
		return nil, fmt.Errorf("grant %q joins %s and %s: neither is this portal with its key of now", g.Forward, g.Entry.Name, g.Exit.Name)
	}
	if r := s.verify(g); r != wire.ReasonNone {
		return nil, fmt.Errorf("grant %q: %v: the policy key or the stamp key is not the one this portal trusts", g.Forward, r)
	}
	if !s.hold(g, held{grant: g, confirmed: true}) {
		return nil, fmt.Errorf("grant %q: this portal holds %d grants already, no more are taken", g.Forward, maxHeld)
	}
	delete(s.removed, g.ID())
	return s.settle(now, PairOf(g.Permission)), nil
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
	if len(s.removed) < maxHeld {
		s.removed[id] = true
	}
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
	if _, some := p.best(now); !some && p.running {
		p.leaving, p.reason = now.Add(moveTime), reason
		s.moved = true
		return nil
	}
	return s.settle(now, key)
}

// Complete says that every grant of a policy version is here: those that the
// server of now has not put are gone.
func (s *Set) Complete(now time.Time, version uint64) []Change {
	s.completed, s.complete = version, true
	clear(s.removed) // none of them is above version
	var changes []Change
	for key, p := range s.pairs {
		for id, h := range p.held {
			if !h.confirmed && !(h.ahead && h.grant.Version > version) {
				delete(p.held, id)
				s.count--
			}
		}
		if !p.leaving.IsZero() {
			p.leaving = now
		}
		changes = append(changes, s.settle(now, key)...)
	}
	return changes
}

// Tick finds what has begun or ended by time alone, and returns when to call
// again; the zero time is never.
func (s *Set) Tick(now time.Time) (changes []Change, next time.Time) {
	s.moved = false
	for key, p := range s.pairs {
		changes = append(changes, s.settle(now, key)...)
		times := []time.Time{p.leaving}
		for _, h := range p.held {
			times = append(times, h.grant.From, h.grant.Ends())
		}
		for _, at := range times {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return changes, next
}

// settle looks at what is held for one pair and says what that changes.
func (s *Set) settle(now time.Time, key Pair) []Change {
	p := s.pairs[key]
	best, some := p.best(now)
	if some {
		p.leaving = time.Time{}
	}
	var change []Change
	switch {
	case some && !p.running:
		p.running, p.current = true, best
		p.ids[best.ID()] = true
		change = []Change{{Kind: Begin, Grant: best}}
	case some && best != p.current:
		p.current = best
		p.ids[best.ID()] = true
		change = []Change{{Kind: Renew, Grant: best}}
	case !some && p.running && !now.Before(p.leaving):
		change = []Change{{Kind: End, Grant: p.current, IDs: slices.Collect(maps.Keys(p.ids)), Reason: p.why()}}
		for id := range p.ids {
			if p.held[id] == nil {
				delete(s.ids, id)
			}
		}
		p.running, p.current, p.leaving = false, grant.Grant{}, time.Time{}
		clear(p.ids)
	}
	if !p.running && len(p.held) == 0 {
		delete(s.pairs, key)
	}
	return change
}

// why says why a pair that has no valid grant ends.
func (p *pair) why() wire.Reason {
	switch {
	case !p.leaving.IsZero():
		return p.reason
	case len(p.held) > 0: // what is still held has ended by itself
		return wire.ReasonGrantExpired
	}
	return wire.ReasonGrantRemoved
}

// best returns the grant of a pair that lasts longest of those valid now.
func (p *pair) best(now time.Time) (best grant.Grant, some bool) {
	for _, h := range p.held {
		if h.grant.Valid(now) == wire.ReasonNone && (!some || later(h.grant, best)) {
			best, some = h.grant, true
		}
	}
	return best, some
}

// later orders grants of one pair: by their end, then by version.
func later(a, b grant.Grant) bool {
	if !a.Ends().Equal(b.Ends()) {
		return a.Ends().After(b.Ends())
	}
	return a.Version > b.Version
}

func (s *Set) verify(g grant.Grant) wire.Reason {
	return g.Verify(grant.Keys{Policy: []ed25519.PublicKey{s.policy}, Stamp: s.stamp})
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
	slices.SortFunc(list, func(a, b grant.Grant) int {
		return cmp.Or(cmp.Compare(a.Forward, b.Forward), cmp.Compare(a.Entry.Name, b.Entry.Name),
			cmp.Compare(a.Listen.String(), b.Listen.String()), cmp.Compare(a.Version, b.Version))
	})
	return list
}
