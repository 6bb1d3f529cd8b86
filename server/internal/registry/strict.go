package registry

import (
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// ErrStrict says why a server that has no policy key cannot grant anything.
var ErrStrict = errors.New("this server has no policy key (strict mode: policy_key in its configuration is a public key), so it grants nothing by itself: netport-server policy request, policy sign where the key is, policy install")

// Permissions returns what a policy comes to for these portals at the time now,
// without versions: for each of their keys.
func Permissions(rules *policy.Policy, portals []Portal, now time.Time) []grant.Permission {
	who := holders{keys: make(map[string]identity.KeyHash), next: make(map[string]identity.KeyHash)}
	for _, p := range portals {
		who.set(p.Name, p.Enrolment)
	}
	return who.expand(rules.Grants(who.keys, nil, now))
}

// Install makes a policy the one in force that was signed elsewhere as this version,
// above all before it. What is in force already and says the same stays as it is; what
// the policy grants and is not among the signed, waits.
func (r *Registry) Install(p *policy.Policy, file string, source []byte, version uint64, signed []grant.Grant) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	before := r.applied.Version
	next := Applied{
		Version: version, File: file, Source: string(source),
		Time: r.now().UTC(), Cause: "signed policy installed", Key: r.PolicyKey(),
	}
	who := r.holdersLocked()
	r.mu.RUnlock()
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
	return r.commit(store.Change{}, next, p, who, nil)
}

// verifyAll reports of each grant whether the policy key has signed it.
func (r *Registry) verifyAll(list []grant.Grant) []bool {
	right := make([]bool, len(list))
	onAll(len(list), func(i int) { right[i] = list[i].Permitted(r.public) })
	return right
}
