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
// tests and CheckNames. What is in force already and says the same stays as it is,
// unless all is to be signed anew.
func (r *Registry) Apply(p *policy.Policy, file string, source []byte, anew bool) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	if r.Strict() {
		return Diff{}, ErrStrict
	}
	r.mu.RLock()
	next := Applied{
		Version: r.applied.Version, File: file, Source: string(source),
		Time: r.now().UTC(), Cause: "policy applied", Key: r.PolicyKey(),
	}
	who := r.holdersLocked()
	who.anew = anew
	r.mu.RUnlock()
	return r.commit(store.Change{}, next, p, who, nil)
}

// PutPortal enrols a portal, or gives an enrolled one a new key, and signs its
// permissions. A name that is taken is refused unless replace is set.
func (r *Registry) PutPortal(p Portal, replace bool) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.checkEnrolLocked(identity.Portal, p.Name, replace); err != nil {
		return Diff{}, err
	}
	return r.putPortal(p, "enrolled")
}

// PutRelay enrols a relay, or gives an enrolled one a new key and addresses.
func (r *Registry) PutRelay(p Relay, replace bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.checkEnrolLocked(identity.Relay, p.Name, replace); err != nil {
		return err
	}
	return r.putRelay(p)
}

// PutAdmin enrols an admin, or gives an enrolled one a new key and another scope.
func (r *Registry) PutAdmin(a Admin, replace bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.checkEnrolLocked(identity.Admin, a.Name, replace); err != nil {
		return err
	}
	return r.putAdmin(a)
}

// CheckEnrol reports why a name cannot be enrolled: it is taken, and replace is not
// set, or it is a group's.
func (r *Registry) CheckEnrol(role identity.Role, name string, replace bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	return r.checkEnrolLocked(role, name, replace)
}

// checkEnrolLocked is CheckEnrol while change is held.
func (r *Registry) checkEnrolLocked(role identity.Role, name string, replace bool) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	switch _, known := r.enrolledLocked(role, name); {
	case role == identity.Portal && r.policy != nil && r.policy.Groups[name] != nil:
		return fmt.Errorf("enrol portal %s: the policy in force has a group of this name: choose another name", name)
	case known && !replace && role == identity.Portal:
		return fmt.Errorf("enrol portal %s: the name has a key already; --replace gives it a new one, and then the old key is worth nothing: its portal is disconnected, and all its permissions are signed anew for the new key", name)
	case known && !replace && role == identity.Admin:
		return fmt.Errorf("enrol admin %s: the name has a key already; --replace gives it a new one, and then the old key is worth nothing", name)
	case known && !replace:
		return fmt.Errorf("enrol relay %s: the name has a key already; --replace gives it a new one and new addresses, and then the relay with the old key is disconnected", name)
	}
	return nil
}

// putPortal writes a portal and the permissions that its keys come to. change is held.
func (r *Registry) putPortal(p Portal, cause string) (Diff, error) {
	value, err := json.Marshal(p)
	if err != nil {
		return Diff{}, err
	}
	r.mu.RLock()
	next, rules, who := r.applied, r.policy, r.holdersLocked()
	r.mu.RUnlock()
	next.Cause = "portal " + p.Name + " " + cause
	who.set(p.Name, p.Enrolment)
	if !r.Strict() { // where all that waits is counted
		who.only = p.Name
	}
	change := store.Change{Put: map[string][]byte{portalPrefix + p.Name: value}}
	return r.commit(change, next, rules, who, func() { r.portals[p.Name] = p })
}

// putRelay writes a relay. change is held.
func (r *Registry) putRelay(p Relay) error {
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	change := store.Change{Put: map[string][]byte{relayPrefix + p.Name: value}}
	_, err = r.commit(change, r.applied, nil, holders{}, func() { r.relays[p.Name] = p })
	return err
}

// putAdmin writes an admin. change is held.
func (r *Registry) putAdmin(a Admin) error {
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	change := store.Change{Put: map[string][]byte{adminPrefix + a.Name: value}}
	_, err = r.commit(change, r.applied, nil, holders{}, func() { r.admins[a.Name] = a })
	return err
}

// commit writes a change together with what it does to the permissions, then
// makes it visible. With rules nil the permissions stay as they are. The version rises,
// where the policy key is here to sign it. update is called under the lock of the maps.
func (r *Registry) commit(change store.Change, next Applied, rules *policy.Policy, who holders, update func()) (Diff, error) {
	if change.Put == nil {
		change.Put = make(map[string][]byte)
	}
	diff := Diff{Version: r.applied.Version}
	var added []grant.Grant
	if rules != nil {
		var lapsed []policy.Opening
		who.open, lapsed = rules.Live(who.open, r.now())
		if err := r.putOpenings(who.open, &change); err != nil {
			return Diff{}, err
		}
		next.Zones = rules.Zones()
		installed := next.Version > r.applied.Version
		if !r.Strict() {
			next.Version++
			r.sign(&next)
		}
		if len(lapsed) > 0 {
			who.only = ""
		}
		added, diff = r.compile(rules, who, next.Version, &change)
		if len(diff.Removed)+len(diff.Added) == 0 && r.applied.Version > 0 && r.applied.Source == next.Source && !installed {
			next = r.applied // nothing that is granted has changed
		}
		diff.Version, diff.Lapsed = next.Version, lapsed
		if err := r.putApplied(next, &change); err != nil {
			return Diff{}, err
		}
	}
	change.If = make(map[string]uint64)
	for key := range change.Put {
		if !strings.HasPrefix(key, permissionPrefix) {
			change.If[key] = r.revisions[key]
		}
	}
	for _, key := range change.Delete {
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
	for _, key := range change.Delete {
		delete(r.revisions, key)
	}
	if rules != nil {
		r.applied, r.policy, r.openings, r.waiting = next, rules, who.open, diff.Waiting
		r.grants.change(diff.Removed, added)
	}
	if update != nil {
		update()
	}
	return diff, nil
}

// compile signs what the rules come to, or takes it from what was signed elsewhere. A permission that says the same as one
// in force stays as it is, version and signature included, so that its id stays
// and what runs under it goes on.
func (r *Registry) compile(rules *policy.Policy, who holders, version uint64, change *store.Change) (added []grant.Grant, diff Diff) {
	same := make(map[string]grant.Grant)
	for g := range r.grants.of(who.only) {
		same[content(g.Permission)] = g
	}
	diff.Version = version
	var sign []grant.Permission
	for _, p := range who.expand(rules.GrantsOf(who.only, who.keys, who.open, r.now())) {
		what := content(p)
		_, held := same[what]
		g, signed := who.signed[what]
		switch {
		case held && (!who.anew || r.Strict() && !signed):
			delete(same, what)
		case signed:
			added = append(added, g)
		case r.Strict():
			diff.Waiting++
		default:
			p.Version = version
			sign = append(sign, p)
		}
	}
	added = append(added, Sign(sign, r.signer)...)
	for _, g := range added {
		diff.Added = append(diff.Added, g.Permission)
		change.Put[permissionKey(g.Permission)] = g.AppendTo(nil)
	}
	for _, g := range same {
		diff.Removed = append(diff.Removed, g.Permission)
		change.Delete = append(change.Delete, permissionKey(g.Permission))
	}
	diff.Kept = len(r.grants.byID) - len(diff.Removed)
	return added, diff
}

// putApplied adds to a change what is kept of the policy in force: its text, which may be
// long, only if that is another.
func (r *Registry) putApplied(next Applied, change *store.Change) error {
	if next.Source != r.applied.Source || r.revisions[sourceKey] == 0 {
		value, err := json.Marshal(next.Source)
		if err != nil {
			return err
		}
		change.Put[sourceKey] = value
	}
	next.Source = ""
	value, err := json.Marshal(next)
	change.Put[policyKey] = value
	return err
}

// content is all that a permission says but its version.
func content(p grant.Permission) string {
	p.Version = 0
	return string(p.AppendTo(nil))
}
