package registry

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/policy"
)

// Enrolment is what the registry knows of an identity.
type Enrolment struct {
	Key      identity.KeyHash `json:"key"`
	Issued   time.Time        `json:"issued"`
	NotAfter time.Time        `json:"not_after"` // of the certificate
	// Issuer is the key of the authority that signed the certificate, and Serial
	// the certificate's number in hexadecimal.
	Issuer identity.KeyHash `json:"issuer,omitzero"`
	Serial string           `json:"serial,omitempty"`
	// Next is a second key, which was enrolled under Key's authority and takes its
	// place when its holder has shown itself with it. Zero: none. NextSince is when its
	// certificate was made; zero: it waits for permissions that name it (Propose).
	Next      identity.KeyHash `json:"next,omitzero"`
	NextSince time.Time        `json:"next_since,omitzero"`
}

// EnrolmentOf describes a chain that was issued at the time now.
func EnrolmentOf(chain []*x509.Certificate, issuer identity.KeyHash, now time.Time) Enrolment {
	leaf := chain[0]
	return Enrolment{Key: identity.HashKey(leaf), Issued: now.UTC(), NotAfter: leaf.NotAfter, Issuer: issuer, Serial: hex.EncodeToString(leaf.SerialNumber.Bytes())}
}

// Holds reports whether the key is one of the enrolled.
func (e Enrolment) Holds(key identity.KeyHash) bool {
	return !key.IsZero() && (key == e.Key || key == e.Next)
}

// Enrolled returns what is known of a portal, relay or admin.
func (r *Registry) Enrolled(role identity.Role, name string) (Enrolment, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.enrolledLocked(role, name)
}

func (r *Registry) enrolledLocked(role identity.Role, name string) (Enrolment, bool) {
	switch role {
	case identity.Portal:
		p, ok := r.portals[name]
		return p.Enrolment, ok
	case identity.Relay:
		p, ok := r.relays[name]
		return p.Enrolment, ok
	case identity.Admin:
		a, ok := r.admins[name]
		return a.Enrolment, ok
	}
	return Enrolment{}, false
}

// Renew notes the new certificate of a name whose holder has proven the key from.
// If it has another key, that is enrolled beside the first, and all permissions of
// the name are signed for both, until Settle.
func (r *Registry) Renew(role identity.Role, name string, from identity.KeyHash, e Enrolment) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	old, ok := r.Enrolled(role, name)
	if !ok || !old.Holds(from) {
		return Diff{}, fmt.Errorf("renew %s %s: the key %s is not enrolled", role, name, from)
	}
	switch {
	case e.Key != from:
		e.Key, e.Next, e.NextSince = from, e.Key, e.Issued
	case old.Key == from && old.NextSince.IsZero(): // what was proposed still waits
		e.Next = old.Next
	}
	return r.put(role, name, e, "renewed with a new key")
}

// Propose notes a key that a portal, which has proven the key from, wants to have next:
// the permissions that name it are to be signed elsewhere first.
func (r *Registry) Propose(name string, from, next identity.KeyHash) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	e, ok := r.Enrolled(identity.Portal, name)
	if !ok || !e.Holds(from) {
		return Diff{}, fmt.Errorf("renew portal %s: the key %s is not enrolled", name, from)
	}
	if e.Key == from && e.Next == next {
		return Diff{Version: r.Applied().Version}, nil
	}
	e.Key, e.Next, e.NextSince = from, next, time.Time{}
	return r.put(identity.Portal, name, e, "wants another key")
}

// Settle makes the key that a name was seen with its only one.
func (r *Registry) Settle(role identity.Role, name string, key identity.KeyHash) (Diff, error) {
	r.change.Lock()
	defer r.change.Unlock()
	e, ok := r.Enrolled(role, name)
	if !ok || !e.Holds(key) {
		return Diff{}, fmt.Errorf("settle %s %s: the key %s is not enrolled", role, name, key)
	}
	if e.Next.IsZero() {
		return Diff{}, nil
	}
	e.Key, e.Next, e.NextSince = key, identity.KeyHash{}, time.Time{}
	return r.put(role, name, e, "has changed its key")
}

// put changes the enrolment of a name that is enrolled. change is held.
func (r *Registry) put(role identity.Role, name string, e Enrolment, cause string) (Diff, error) {
	switch role {
	case identity.Portal:
		return r.putPortal(Portal{Name: name, Enrolment: e}, cause)
	case identity.Admin:
		a, _ := r.Admin(name)
		a.Enrolment = e
		return Diff{Version: r.Applied().Version}, r.putAdmin(a)
	}
	p, _ := r.Relay(name)
	p.Enrolment = e
	return Diff{}, r.putRelay(p)
}

// holders are the keys that the portals have: one each, and a second for those
// that change it.
type holders struct {
	keys, next map[string]identity.KeyHash
	open       policy.Openings        // and what is open to them on request
	signed     map[string]grant.Grant // by content: what was signed elsewhere
	anew       bool                   // what is signed now takes the place of what says the same
	only       string                 // the one portal of which anything has changed; "": maybe all
}

func (h holders) set(name string, e Enrolment) {
	h.keys[name] = e.Key
	delete(h.next, name)
	if !e.Next.IsZero() {
		h.next[name] = e.Next
	}
}

// expand adds to permissions for the first keys those for the second ones.
func (h holders) expand(list []grant.Permission) []grant.Permission {
	if len(h.next) == 0 {
		return list
	}
	for _, end := range []func(*grant.Permission) *grant.Party{
		func(p *grant.Permission) *grant.Party { return &p.Entry },
		func(p *grant.Permission) *grant.Party { return &p.Exit },
	} {
		for _, p := range list[:len(list):len(list)] {
			if key, ok := h.next[end(&p).Name]; ok {
				end(&p).Key = key
				list = append(list, p)
			}
		}
	}
	return list
}
