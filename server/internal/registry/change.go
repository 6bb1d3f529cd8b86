package registry

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// Apply makes p, read from source, the policy in force. It must have passed its
// tests and CheckNames.
func (r *Registry) Apply(p *policy.Policy, file string, source []byte) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	next := Applied{
		Version: r.applied.Version + 1, File: file, Source: string(source),
		Time: r.now().UTC(), Cause: "policy applied", Key: r.PolicyKey(),
	}
	keys := r.keysLocked()
	r.mu.RUnlock()
	return r.commit(store.Change{}, next, p, keys, nil)
}

// PutPortal enrols a portal, or gives an enrolled one a new key, and signs its
// permissions. A name that is taken is refused unless replace is set.
func (r *Registry) PutPortal(p Portal, replace bool) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	_, known := r.portals[p.Name]
	group := r.policy != nil && r.policy.Groups[p.Name] != nil
	next, rules, keys := r.applied, r.policy, r.keysLocked()
	r.mu.RUnlock()
	if group {
		return Diff{}, fmt.Errorf("enrol portal %s: the policy in force has a group of this name: choose another name", p.Name)
	}
	if known && !replace {
		return Diff{}, fmt.Errorf("enrol portal %s: the name has a key already; --replace gives it a new one, and then the old key is worth nothing: its portal is disconnected, and all its permissions are signed anew for the new key", p.Name)
	}
	value, err := json.Marshal(p)
	if err != nil {
		return Diff{}, err
	}
	key := portalPrefix + p.Name
	change := store.Change{Put: map[string][]byte{key: value}}
	next.Version++
	next.Cause = "portal " + p.Name + " enrolled"
	keys[p.Name] = p.Key
	return r.commit(change, next, rules, keys, func() { r.portals[p.Name] = p })
}

// PutRelay enrols a relay, or gives an enrolled one a new key and addresses.
func (r *Registry) PutRelay(p Relay, replace bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	_, known := r.relays[p.Name]
	next := r.applied
	r.mu.RUnlock()
	if known && !replace {
		return fmt.Errorf("enrol relay %s: the name has a key already; --replace gives it a new one and new addresses, and then the relay with the old key is disconnected", p.Name)
	}
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	key := relayPrefix + p.Name
	_, err = r.commit(store.Change{Put: map[string][]byte{key: value}}, next, nil, nil, func() { r.relays[p.Name] = p })
	return err
}

// commit writes a change together with what it does to the permissions, then
// makes it visible. With rules nil the permissions stay as they are. update is
// called under the lock of the maps.
func (r *Registry) commit(change store.Change, next Applied, rules *policy.Policy, keys map[string]identity.KeyHash, update func()) (Diff, error) {
	if change.Put == nil {
		change.Put = make(map[string][]byte)
	}
	diff := Diff{Version: r.applied.Version}
	grants := r.grants
	if rules != nil {
		grants, diff = r.compile(rules, keys, next.Version, &change)
		if len(diff.Removed)+len(diff.Added) == 0 && r.applied.Version > 0 && r.applied.Source == next.Source {
			next = r.applied // nothing that is granted has changed
			diff.Version = next.Version
		}
		value, err := json.Marshal(next)
		if err != nil {
			return Diff{}, err
		}
		change.Put[policyKey] = value
	}
	change.If = make(map[string]uint64)
	for key := range change.Put {
		if !strings.HasPrefix(key, permissionPrefix) {
			change.If[key] = r.revisions[key]
		}
	}
	revision, err := r.store.Commit(change)
	if err != nil {
		return Diff{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range change.If {
		r.revisions[key] = revision
	}
	if rules != nil {
		r.applied, r.policy, r.grants = next, rules, grants
	}
	if update != nil {
		update()
	}
	return diff, nil
}

// compile signs what the rules come to. A permission that says the same as one
// in force stays as it is, version and signature included, so that its id stays
// and what runs under it goes on.
func (r *Registry) compile(rules *policy.Policy, keys map[string]identity.KeyHash, version uint64, change *store.Change) (*index, Diff) {
	same := make(map[string]grant.Grant, len(r.grants.byID))
	for _, g := range r.grants.byID {
		same[content(g.Permission)] = g
	}
	grants, diff := newIndex(), Diff{Version: version}
	for _, p := range rules.Grants(keys, r.now()) {
		if g, ok := same[content(p)]; ok {
			delete(same, content(p))
			grants.add(g)
			diff.Kept++
			continue
		}
		p.Version = version
		g := grant.Sign(p, r.signer)
		grants.add(g)
		diff.Added = append(diff.Added, p)
		change.Put[permissionKey(p)] = g.AppendTo(nil)
	}
	for _, g := range same {
		diff.Removed = append(diff.Removed, g.Permission)
		change.Delete = append(change.Delete, permissionKey(g.Permission))
	}
	return grants, diff
}

// content is all that a permission says but its version.
func content(p grant.Permission) string {
	p.Version = 0
	return string(p.AppendTo(nil))
}
