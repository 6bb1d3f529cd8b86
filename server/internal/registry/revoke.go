package registry

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/store"
)

// Revoked is a revocation as it is kept.
type Revoked struct {
	Epoch  uint64           `json:"epoch"`
	Time   time.Time        `json:"time"`
	Role   identity.Role    `json:"role,omitempty"`
	Name   string           `json:"name,omitempty"`
	Before time.Time        `json:"before,omitzero"`
	Key    identity.KeyHash `json:"key,omitzero"`
	Issuer identity.KeyHash `json:"issuer,omitzero"`
	Serial string           `json:"serial,omitempty"` // hexadecimal
}

// Revocation returns it as portals and relays are told.
func (v Revoked) Revocation() identity.Revocation {
	serial, _ := hex.DecodeString(v.Serial)
	return identity.Revocation{Epoch: v.Epoch, Role: v.Role, Name: v.Name, Before: v.Before, Key: v.Key, Issuer: v.Issuer, Serial: string(serial)}
}

// ErrFull says that there are as many revocations as portals and relays hold. None is
// forgotten to make room: a portal's clock may be behind, an authority elsewhere may have
// made certificates of any length, and a key that was revoked must never be enrolled again.
var ErrFull = fmt.Errorf("%d revocations are the most that portals and relays hold, and none is forgotten: \"invite NAME --replace\" takes a key its name away without one", identity.MaxRevocations)

// Revoke takes back what the list says; epochs and times are set here. Whoever is
// enrolled under a name or a key of the list is enrolled no more, and permissions
// that name him are gone. All of it is one commit. A revocation that says no more than a
// newer one is forgotten; it returns ErrFull, and changes nothing, where there is no room.
func (r *Registry) Revoke(list ...Revoked) ([]Revoked, Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	next, rules, who, epoch := r.applied, r.policy, r.holdersLocked(), max(r.epochLocked(), r.told)
	r.mu.RUnlock()
	change := store.Change{Put: make(map[string][]byte)}
	kept := r.superseded(list, &change)
	if len(kept)+len(list) > identity.MaxRevocations {
		return nil, Diff{}, fmt.Errorf("revoke: %w", ErrFull)
	}
	var portals, relays, admins []string
	at := r.now().UTC().Truncate(time.Second)
	for i := range list {
		v := &list[i]
		epoch++
		v.Epoch, v.Time = epoch, at
		if err := v.Revocation().Check(); err != nil {
			return nil, Diff{}, fmt.Errorf("revoke: %w", err)
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, Diff{}, err
		}
		change.Put[revocationKey(epoch)] = value
		for name, p := range r.portals {
			if v.hits(identity.Portal, name, p.Enrolment) && who.drop(name) {
				portals = append(portals, name)
				change.Delete = append(change.Delete, portalPrefix+name)
				next.Cause = "portal " + name + " revoked"
			}
		}
		for name, p := range r.relays {
			if v.hits(identity.Relay, name, p.Enrolment) && !slices.Contains(relays, name) {
				relays = append(relays, name)
				change.Delete = append(change.Delete, relayPrefix+name)
			}
		}
		for name, a := range r.admins {
			if v.hits(identity.Admin, name, a.Enrolment) && !slices.Contains(admins, name) {
				admins = append(admins, name)
				change.Delete = append(change.Delete, adminPrefix+name)
			}
		}
	}
	if len(portals) == 0 {
		rules = nil
	}
	diff, err := r.commit(change, next, rules, who, func() {
		for _, name := range portals {
			delete(r.portals, name)
		}
		for _, name := range relays {
			delete(r.relays, name)
		}
		for _, name := range admins {
			delete(r.admins, name)
		}
		r.revoked = append(kept, list...)
	})
	return list, diff, err
}

// superseded returns the revocations that still say something beside those of the list, in
// a list of its own, and has the change delete the others: the older ones of a name that is
// revoked anew. change is held.
func (r *Registry) superseded(list []Revoked, change *store.Change) []Revoked {
	kept := make([]Revoked, 0, len(r.revoked)+len(list))
	for _, old := range r.revoked {
		if slices.ContainsFunc(list, func(v Revoked) bool {
			return v.Name != "" && v.Role == old.Role && v.Name == old.Name && !v.Before.Before(old.Before)
		}) {
			change.Delete = append(change.Delete, revocationKey(old.Epoch))
			continue
		}
		kept = append(kept, old)
	}
	return kept
}

func revocationKey(epoch uint64) string { return fmt.Sprintf("%s%016x", revocationPrefix, epoch) }

// hits reports whether an enrolled name loses its enrolment: a certificate alone is
// not the name's.
func (v Revoked) hits(role identity.Role, name string, e Enrolment) bool {
	return v.Role == role && v.Name == name || e.Holds(v.Key)
}

// drop takes a name out, and reports whether it was in.
func (h holders) drop(name string) bool {
	_, ok := h.keys[name]
	delete(h.keys, name)
	delete(h.next, name)
	return ok
}

// Revocations returns the revocations after an epoch, in their order; 0 for all.
func (r *Registry) Revocations(after uint64) []Revoked {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, found := slices.BinarySearchFunc(r.revoked, after, func(v Revoked, epoch uint64) int { return cmp.Compare(v.Epoch, epoch) })
	if found {
		i++
	}
	return r.revoked[i:len(r.revoked):len(r.revoked)]
}

// Epoch returns the epoch of the last revocation; 0 if there is none.
func (r *Registry) Epoch() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.epochLocked()
}

func (r *Registry) epochLocked() uint64 {
	if n := len(r.revoked); n > 0 {
		return r.revoked[n-1].Epoch
	}
	return 0
}

// maxLost is how far a told epoch may lie above ours.
const maxLost = identity.MaxRevocations

// Told notes an epoch above ours that a portal or relay holds: this state is an old
// one, and other revocations had the epochs up to that one. The next revocation gets a
// higher one, so that whoever asks for what is newer hears of it.
func (r *Registry) Told(epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch-min(r.epochLocked(), epoch) <= maxLost {
		r.told = max(r.told, epoch)
	}
}

// Lost returns how many revocations others hold that this state lacks, as far as it was
// told since the last one.
func (r *Registry) Lost() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return max(r.told, r.epochLocked()) - r.epochLocked()
}

// Begin returns when a certificate of the name may begin at the earliest: not before
// the last revocation of the name.
func (r *Registry) Begin(role identity.Role, name string) time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var begin time.Time
	for _, v := range r.revoked {
		if v.Role == role && v.Name == name && v.Before.After(begin) {
			begin = v.Before
		}
	}
	return begin
}

// IsRevoked reports whether the key was revoked.
func (r *Registry) IsRevoked(key identity.KeyHash) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, v := range r.revoked {
		if v.Key == key {
			return true
		}
	}
	return false
}
