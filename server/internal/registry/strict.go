package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// ErrStrict says why a server that has no policy key cannot grant anything.
var ErrStrict = errors.New("this server has no policy key (strict mode: policy_key in its configuration is a public key), so it grants nothing by itself: netport-server policy request, policy sign where the key is, policy install")

// Permissions returns what a policy comes to for these portals at the time now,
// without versions: for each of their keys, with what is open on request.
func Permissions(rules *policy.Policy, portals []Portal, open policy.Openings, now time.Time) []grant.Permission {
	who := holders{keys: make(map[string]identity.KeyHash), next: make(map[string]identity.KeyHash)}
	for _, p := range portals {
		who.set(p.Name, p.Enrolment)
	}
	return who.expand(rules.Grants(who.keys, open, now))
}

// Signed is what was signed elsewhere.
type Signed struct {
	Complete wire.GrantsComplete // its version
	Grants   []grant.Grant
	For      []SignedPortal
	// Anew: what says the same as something in force takes its place.
	Anew bool
}

// SignedPortal is a portal and those of its keys that the signer knew.
type SignedPortal struct {
	Name string             `json:"name"`
	Keys []identity.KeyHash `json:"keys"`
}

// signedFor are the keys that the signer of the policy in force knew, by portal.
type signedFor map[string][]identity.KeyHash

// Install makes a policy the one in force that was signed elsewhere, as a version above
// all before it. What is in force already and says the same stays as it is; what
// the policy grants and is not among the signed, waits.
func (r *Registry) Install(p *policy.Policy, file string, source []byte, s Signed) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	version, signed := s.Complete.Version, s.Grants
	r.mu.RLock()
	before := r.applied.Version
	next := Applied{
		Version: version, File: file, Source: string(source),
		Time: r.now().UTC(), Cause: "signed policy installed", Key: r.PolicyKey(), Signature: s.Complete.Signature[:],
	}
	who := r.holdersLocked()
	who.anew = s.Anew
	r.mu.RUnlock()
	if !s.Complete.SignedBy(r.public) {
		return Diff{}, fmt.Errorf("install policy: its version %d is not signed by the policy key %s", version, r.PolicyKey())
	}
	if version <= before {
		return Diff{}, fmt.Errorf("install policy: it was signed as version %d, and version %d is in force: ask anew (netport-server policy request)", version, before)
	}
	who.signed = make(map[string]grant.Grant, len(signed))
	for i, ok := range r.verifyAll(signed) {
		g := signed[i]
		if !ok || g.Version != version {
			return Diff{}, fmt.Errorf("install policy: the permission for the forward %q is not signed by the policy key %s as version %d", g.Forward, r.PolicyKey(), version)
		}
		who.signed[content(g.Permission)] = g
	}
	known := make(signedFor, len(s.For))
	for _, f := range s.For {
		known[f.Name] = f.Keys
	}
	value, err := json.Marshal(known)
	if err != nil {
		return Diff{}, err
	}
	change := store.Change{Put: map[string][]byte{signedForKey: value}}
	return r.commit(change, next, p, who, func() { r.signedFor = known })
}

// Granted reports whether a portal with this key would have all that it is granted with the
// one it has: in strict mode, whether the signer of the policy in force knew the key,
// and every permission of the portal names it.
func (r *Registry) Granted(name string, key identity.KeyHash) bool {
	if !r.Strict() {
		return true
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.policy == nil || !slices.Contains(r.signedFor[name], key) {
		return false
	}
	keys := r.keysLocked()
	keys[name] = key
	held := r.heldLocked()
	return !slices.ContainsFunc(r.policy.Grants(keys, r.openings, r.now()), func(p grant.Permission) bool {
		return (p.Entry.Name == name || p.Exit.Name == name) && !held[content(p)]
	})
}

// heldLocked returns what is granted, by content.
func (r *Registry) heldLocked() map[string]bool {
	held := make(map[string]bool, len(r.grants.byID))
	for _, g := range r.grants.byID {
		held[content(g.Permission)] = true
	}
	return held
}

// Unsigned returns the portals, by name, of which the signer of the policy in force did
// not know a key that they have or want to have; in strict mode only.
func (r *Registry) Unsigned() []string {
	if !r.Strict() {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for name, p := range r.portals {
		known := r.signedFor[name]
		if !slices.Contains(known, p.Key) || !p.Next.IsZero() && !slices.Contains(known, p.Next) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// verifyAll reports of each grant whether the policy key has signed it.
func (r *Registry) verifyAll(list []grant.Grant) []bool {
	right := make([]bool, len(list))
	onAll(len(list), func(i int) { right[i] = list[i].Permitted(r.public) })
	return right
}
