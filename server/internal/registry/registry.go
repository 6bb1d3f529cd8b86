// Package registry holds what the server knows for good: which portals, relays
// and admins are enrolled, under which keys, and the policy in force with its
// signed permissions.
//
// All of it is in memory, and every change is on disk (package store) before it
// is acknowledged or acted upon. Enrolment and policy change together: a
// permission names portals by key, so a new key means new permissions, and both
// are one commit.
//
// A Registry is safe for concurrent use. Changes are made one at a time.
package registry

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// The keys of the store.
const (
	portalPrefix     = "portal/"
	relayPrefix      = "relay/"
	adminPrefix      = "admin/"
	permissionPrefix = "permission/"
	revocationPrefix = "revocation/"
	openingPrefix    = "opening/"
	policyKey        = "policy"
	signedForKey     = "signed-for"
	sourceKey        = "applied-source"
)

// Portal is an enrolled portal. A name has one key, and a second one while it
// changes it.
type Portal struct {
	Name string `json:"name"`
	Enrolment
}

// Relay is an enrolled relay, and where portals find it: IP addresses or DNS
// names that the operator gave. The relay itself is never asked.
type Relay struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Enrolment
}

// Admin is an enrolled admin: an operator who works from another machine.
type Admin struct {
	Name string `json:"name"`
	// ReadOnly admins may ask for what is, and change nothing.
	ReadOnly bool `json:"read_only,omitempty"`
	Enrolment
}

// Applied is the policy in force.
type Applied struct {
	// Version rises with every change of what is granted; in strict mode with every
	// signed policy, for nobody else can sign it.
	Version uint64    `json:"version"`
	File    string    `json:"file"` // as it was named
	Source  string    `json:"source"`
	Time    time.Time `json:"time"` // when the file was applied
	Cause   string    `json:"cause"`
	Key     string    `json:"policy_key"`
	// Zones are the rules of the time zones that the policy names, as they were when
	// it was applied.
	Zones map[string]string `json:"zones,omitempty"`
	// Signature is the policy key's, of the version.
	Signature []byte `json:"version_signature,omitempty"`
}

// Complete returns the version as portals are told it.
func (a Applied) Complete() wire.GrantsComplete {
	m := wire.GrantsComplete{Version: a.Version}
	if copy(m.Signature[:], a.Signature) == 0 {
		return wire.GrantsComplete{} // of a strict server that began as another
	}
	return m
}

// Diff is what a change did to the grants.
type Diff struct {
	Version uint64
	Removed []grant.Permission
	Added   []grant.Permission
	Kept    int
	Waiting int // in strict mode: permissions that are not signed
	// Lapsed are openings that have ended by themselves.
	Lapsed []policy.Opening
}

// Registry is the whole of it.
type Registry struct {
	// Constant.
	domain string
	store  store.Store
	public ed25519.PublicKey  // the policy key
	signer ed25519.PrivateKey // its secret half; nil: it is elsewhere (strict mode)
	now    func() time.Time

	change sync.Mutex // held through a change

	mu        sync.RWMutex // guards the following
	portals   map[string]Portal
	relays    map[string]Relay
	admins    map[string]Admin
	revoked   []Revoked         // in the order of their epochs
	told      uint64            // an epoch that somebody else holds: see Told
	revisions map[string]uint64 // of every key in the store but permissions
	applied   Applied
	policy    *policy.Policy // what applied.Source says; nil before the first
	openings  policy.Openings
	grants    *index
	// In strict mode only:
	waiting   int       // permissions of the policy in force that are not signed
	signedFor signedFor // when that policy was signed
}

// Open reads the registry of a domain from a store. signer is the policy key.
func Open(domain string, s store.Store, signer ed25519.PrivateKey, now func() time.Time) (*Registry, error) {
	return restore(domain, s, signer.Public().(ed25519.PublicKey), signer, now)
}

// OpenStrict reads the registry of a server that cannot sign: of the policy key it has
// the public half alone, and what is granted comes signed (Install).
func OpenStrict(domain string, s store.Store, public ed25519.PublicKey, now func() time.Time) (*Registry, error) {
	return restore(domain, s, public, nil, now)
}

func restore(domain string, s store.Store, public ed25519.PublicKey, signer ed25519.PrivateKey, now func() time.Time) (*Registry, error) {
	r := &Registry{
		domain: domain, store: s, public: public, signer: signer, now: now,
		portals: make(map[string]Portal), relays: make(map[string]Relay), admins: make(map[string]Admin),
		revisions: make(map[string]uint64), grants: newIndex(), openings: make(policy.Openings),
	}
	if err := load(r, portalPrefix, func(p Portal) { r.portals[p.Name] = p }); err != nil {
		return nil, err
	}
	if err := load(r, relayPrefix, func(p Relay) { r.relays[p.Name] = p }); err != nil {
		return nil, err
	}
	if err := load(r, adminPrefix, func(a Admin) { r.admins[a.Name] = a }); err != nil {
		return nil, err
	}
	if err := load(r, revocationPrefix, func(v Revoked) { r.revoked = append(r.revoked, v) }); err != nil {
		return nil, err
	}
	for i, v := range r.revoked {
		if i > 0 && v.Epoch <= r.revoked[i-1].Epoch || v.Revocation().Check() != nil {
			return nil, fmt.Errorf("read state: the revocation of epoch %d is broken", v.Epoch)
		}
	}
	if err := load(r, openingPrefix, func(o policy.Opening) { r.openings[o.Key()] = o }); err != nil {
		return nil, err
	}
	if err := load(r, policyKey, func(a Applied) { r.applied = a }); err != nil {
		return nil, err
	}
	if err := load(r, sourceKey, func(source string) { r.applied.Source = source }); err != nil {
		return nil, err
	}
	if r.applied.Version == 0 {
		return r, nil
	}
	if err := load(r, signedForKey, func(s signedFor) { r.signedFor = s }); err != nil {
		return nil, err
	}
	if own := r.PolicyKey(); r.applied.Key != own {
		return nil, fmt.Errorf("read state: the permissions in force are signed by the policy key %s, and the configuration names %s: put the old policy key back", r.applied.Key, own)
	}
	p, err := policy.ParseAgain(r.applied.File, []byte(r.applied.Source), now(), r.applied.Zones)
	if err != nil {
		return nil, fmt.Errorf("read state: the policy in force, version %d: %w", r.applied.Version, err)
	}
	r.policy = p
	if !r.Strict() {
		r.sign(&r.applied) // of a state that knew no such signature
	}
	entries, err := s.List(permissionPrefix)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		g, err := grant.Parse(e.Value)
		if err != nil || g.ID().IsZero() || permissionKey(g.Permission) != e.Key {
			return nil, fmt.Errorf("read state: the permission %q is broken", e.Key)
		}
		r.grants.add(g)
	}
	if r.Strict() {
		who := r.holdersLocked()
		who.open, _ = p.Live(who.open, now())
		_, diff := r.compile(p, who, r.applied.Version, &store.Change{Put: make(map[string][]byte)})
		r.waiting = diff.Waiting
	}
	return r, nil
}

func load[T any](r *Registry, prefix string, keep func(T)) error {
	entries, err := r.store.List(prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var v T
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return fmt.Errorf("read state: the entry %q: %w", e.Key, err)
		}
		r.revisions[e.Key] = e.Revision
		keep(v)
	}
	return nil
}

// Domain returns the domain of all names.
func (r *Registry) Domain() string { return r.domain }

// PolicyKey returns the public policy key as portals pin it.
func (r *Registry) PolicyKey() string {
	return grant.FormatKey(r.public)
}

// Strict reports whether the secret policy key is elsewhere.
func (r *Registry) Strict() bool { return r.signer == nil }

// Waiting returns how many permissions of the policy in force are granted to nobody
// because they are not signed, which happens in strict mode only: the next signature
// brings them.
func (r *Registry) Waiting() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.waiting
}

// Portal returns an enrolled portal.
func (r *Registry) Portal(name string) (Portal, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.portals[name]
	return p, ok
}

// Relay returns an enrolled relay.
func (r *Registry) Relay(name string) (Relay, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.relays[name]
	return p, ok
}

// Admin returns an enrolled admin.
func (r *Registry) Admin(name string) (Admin, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	a, ok := r.admins[name]
	return a, ok
}

// Portals returns all enrolled portals by name.
func (r *Registry) Portals() []Portal {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return sorted(r.portals)
}

// Relays returns all enrolled relays by name.
func (r *Registry) Relays() []Relay {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return sorted(r.relays)
}

// Admins returns all enrolled admins by name.
func (r *Registry) Admins() []Admin {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return sorted(r.admins)
}

// Keys returns the key of every enrolled portal.
func (r *Registry) Keys() map[string]identity.KeyHash {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keysLocked()
}

func (r *Registry) keysLocked() map[string]identity.KeyHash {
	keys := make(map[string]identity.KeyHash, len(r.portals))
	for name, p := range r.portals {
		keys[name] = p.Key
	}
	return keys
}

// holdersLocked returns which keys the portals have.
func (r *Registry) holdersLocked() holders {
	h := holders{keys: r.keysLocked(), next: make(map[string]identity.KeyHash), open: maps.Clone(r.openings)}
	for name, p := range r.portals {
		h.set(name, p.Enrolment)
	}
	return h
}

// Applied returns the policy in force; Version 0 before the first.
func (r *Registry) Applied() Applied {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.applied
}

// Policy returns the policy in force, which nobody changes; nil before the first.
func (r *Registry) Policy() *policy.Policy {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.policy
}

// CheckAddress reports why s cannot be where a relay is found.
func CheckAddress(s string) error {
	if a, err := netip.ParseAddr(s); err == nil {
		switch {
		case a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
			return fmt.Errorf("address %q: nothing outside one network can dial it", s)
		}
		return nil
	}
	if strings.ContainsAny(s, ":/[]") {
		return fmt.Errorf("address %q: write an IP address or a DNS name, without a port", s)
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; last == "" || last[0] >= '0' && last[0] <= '9' {
		return fmt.Errorf("address %q: it is neither an IP address nor a DNS name", s)
	}
	return identity.CheckName(s)
}

func sorted[T any](m map[string]T) []T {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	list := make([]T, len(names))
	for i, n := range names {
		list[i] = m[n]
	}
	return list
}

func permissionKey(p grant.Permission) string {
	id, _ := p.ID().MarshalText()
	return permissionPrefix + string(id)
}
