// Package pending holds the certificates of a server that has no CA key: what is
// asked for waits here until the operator has taken the requests to where the key is
// (package strict) and brought back what was signed.
//
// Queue is an Issuer as any other. It makes nothing itself: it answers ErrCertificate,
// keeps the request, and gives out the certificate to whoever asks again for the same
// name and key once that was installed. So whoever wants one asks until he has it, and
// whatever is lost on the way, by a restart or a broken connection, is asked for again.
//
//	Issue               Install              Issue
//	-----> waiting -------------> signed ------------> signed, until who asks has it
//	          ^                                              |
//	          +----------------------------------------------+ Issue by who has it: his next
package pending

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/store"
	"github.com/netport/netport/server/internal/strict"
)

const (
	// maxKeys is for how many keys of one name requests are kept: of more the oldest goes.
	maxKeys = 4
	// forgetAfter is how long a request is kept that nobody repeats.
	forgetAfter = 30 * 24 * time.Hour
	// noteTime is how often it is written down that a request was repeated.
	noteTime = 24 * time.Hour
	// maxListed is how many requests are given out at once: they travel in one answer.
	maxListed = 8000

	prefix = "certificate/"
)

var (
	// ErrWaits is in the error about all that an operator has to sign first: it is to be
	// asked for again.
	ErrWaits = errors.New("an operator has to sign first")
	// ErrCertificate says that the certificate waits for the key of the CA.
	ErrCertificate = fmt.Errorf("%w: the CA key is elsewhere (netport-server ca pending)", ErrWaits)
	// ErrPermissions says that a key waits for permissions that name it.
	ErrPermissions = fmt.Errorf("%w: no permissions name the new key yet (netport-server policy request)", ErrWaits)
)

// entry is a request and, once it was signed, the certificate.
type entry struct {
	strict.CertificateRequest
	Asked time.Time `json:"asked"`           // last; noted once a day
	Chain [][]byte  `json:"chain,omitempty"` // DER, leaf first; none: it waits
}

// Queue is described at the top of the package. It is safe for concurrent use.
type Queue struct {
	domain  string
	store   store.Store
	trusted func() []*x509.Certificate
	now     func() time.Time

	mu sync.Mutex // held through each change
}

// New returns the queue of a domain. trusted returns the authorities that count.
func New(domain string, s store.Store, trusted func() []*x509.Certificate, now func() time.Time) *Queue {
	return &Queue{domain: domain, store: s, trusted: trusted, now: now}
}

func keyOf(role identity.Role, name string, key identity.KeyHash) string {
	text, _ := key.MarshalText()
	return nameOf(role, name) + string(text)
}

func nameOf(role identity.Role, name string) string { return prefix + string(role) + "/" + name + "/" }

// Issue implements ca.Issuer. It returns ErrCertificate where nothing was signed yet.
func (q *Queue) Issue(_ context.Context, o ca.Order) ([]*x509.Certificate, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now, own := q.now().UTC(), identity.HashPublic(o.Public)
	list, err := q.list(nameOf(o.Role, o.Name))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(k kept) bool { return k.Key == own })
	if i >= 0 && list[i].Chain != nil {
		if chain, err := q.signed(list[i].entry, o, now); err == nil {
			return chain, nil
		}
	}
	e := entry{
		CertificateRequest: strict.CertificateRequest{Role: o.Role, Name: o.Name, Key: own, Request: o.Request, Begin: o.Begin, Since: now},
		Asked:              now,
	}
	if i >= 0 && list[i].Chain == nil {
		if old := list[i]; now.Sub(old.Asked) < noteTime && old.Begin.Equal(o.Begin) {
			return nil, ErrCertificate
		}
		e.Since = list[i].Since
	}
	if err := q.keep(e, list); err != nil {
		return nil, fmt.Errorf("keep the request of %s %s: %w", o.Role, o.Name, err)
	}
	return nil, ErrCertificate
}

// signed returns the chain of an entry if it is what is ordered, and another than what
// who orders it has.
func (q *Queue) signed(e entry, o ca.Order, now time.Time) ([]*x509.Certificate, error) {
	chain, err := identity.ParseChain(e.Chain)
	if err != nil {
		return nil, err
	}
	if string(chain[0].SerialNumber.Bytes()) == o.Held || chain[0].NotBefore.Before(o.Begin) {
		return nil, errors.New("who orders has it, or it was revoked")
	}
	return ca.Check(chain, identity.ID{Domain: q.domain, Role: o.Role, Name: o.Name}, o.Public, 0, q.trusted(), now)
}

// keep writes an entry, in place of those that nobody asks for any more.
func (q *Queue) keep(e entry, others []kept) error {
	value, err := json.Marshal(e)
	if err != nil {
		return err
	}
	at := keyOf(e.Role, e.Name, e.Key)
	change := store.Change{Put: map[string][]byte{at: value}}
	others = slices.DeleteFunc(others, func(k kept) bool { return k.Key == e.Key })
	slices.SortFunc(others, func(a, b kept) int { return b.Asked.Compare(a.Asked) })
	for i, k := range others {
		if i+1 >= maxKeys || e.Asked.Sub(k.Asked) > forgetAfter {
			change.Delete = append(change.Delete, k.at)
		}
	}
	_, err = q.store.Commit(change)
	return err
}

// kept is an entry and where it lies.
type kept struct {
	entry
	at string
}

func (q *Queue) list(prefix string) ([]kept, error) {
	stored, err := q.store.List(prefix)
	if err != nil {
		return nil, err
	}
	list := make([]kept, 0, len(stored))
	for _, s := range stored {
		k := kept{at: s.Key}
		if err := json.Unmarshal(s.Value, &k.entry); err != nil {
			return nil, fmt.Errorf("read state: the entry %q: %w", s.Key, err)
		}
		list = append(list, k)
	}
	return list, nil
}

// Waiting returns the requests that are to be signed, the oldest first, at most 8,000 of
// them, and how many there are. Who has not repeated his for 30 days is not among them.
func (q *Queue) Waiting() (list []strict.CertificateRequest, all int, err error) {
	entries, err := q.list(prefix)
	if err != nil {
		return nil, 0, err
	}
	now := q.now()
	entries = slices.DeleteFunc(entries, func(k kept) bool { return k.Chain != nil || now.Sub(k.Asked) > forgetAfter })
	slices.SortStableFunc(entries, func(a, b kept) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.at, b.at)) })
	for _, k := range entries[:min(len(entries), maxListed)] {
		list = append(list, k.CertificateRequest)
	}
	return list, len(entries), nil
}

// Install takes what was signed, and returns how many certificates somebody waits for.
// One that is not what was asked for, or is not under a trusted authority, is refused, and
// the others are taken all the same. One that nobody waits for means nothing.
func (q *Queue) Install(list []strict.Certificate) (installed int, refused []error, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UTC()
	change := store.Change{Put: make(map[string][]byte)}
	for _, c := range list {
		e, err := q.take(c, now)
		if err != nil {
			refused = append(refused, fmt.Errorf("the certificate of %s %s: %w", c.Role, c.Name, err))
			continue
		}
		if e == nil {
			continue
		}
		value, err := json.Marshal(e)
		if err != nil {
			return 0, nil, err
		}
		change.Put[keyOf(e.Role, e.Name, e.Key)] = value
	}
	if len(change.Put) == 0 {
		return 0, refused, nil
	}
	if _, err := q.store.Commit(change); err != nil {
		return 0, nil, err
	}
	return len(change.Put), refused, nil
}

// take returns the entry that a certificate answers, with it; nil if there is none.
func (q *Queue) take(c strict.Certificate, now time.Time) (*entry, error) {
	id, err := identity.New(q.domain, c.Role, c.Name)
	if err != nil {
		return nil, err
	}
	chain, err := identity.ParseChain(c.Chain)
	if err != nil {
		return nil, err
	}
	stored, err := q.store.Get(keyOf(c.Role, c.Name, identity.HashKey(chain[0])))
	if err != nil || stored.Revision == 0 {
		return nil, err
	}
	var e entry
	if err := json.Unmarshal(stored.Value, &e); err != nil {
		return nil, fmt.Errorf("read state: the entry %q: %w", stored.Key, err)
	}
	asked, err := identity.ParseRequest(e.Request)
	if err != nil {
		return nil, err
	}
	if chain, err = ca.Check(chain, id, asked.Public, 0, q.trusted(), now); err != nil {
		return nil, err
	}
	if chain[0].NotBefore.Before(e.Begin) {
		return nil, fmt.Errorf("it begins before the revocation of this name (%s): have it signed anew", e.Begin.Format(time.RFC3339))
	}
	e.Chain = nil
	for _, cert := range chain {
		e.Chain = append(e.Chain, bytes.Clone(cert.Raw))
	}
	return &e, nil
}

// Void takes out what is asked for under a name, and what for any of the keys: it was
// revoked.
func (q *Queue) Void(role identity.Role, name string, keys ...identity.KeyHash) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries, err := q.list(prefix)
	if err != nil {
		return err
	}
	var change store.Change
	for _, k := range entries {
		if k.Role == role && k.Name == name || slices.Contains(keys, k.Key) {
			change.Delete = append(change.Delete, k.at)
		}
	}
	if len(change.Delete) == 0 {
		return nil
	}
	_, err = q.store.Commit(change)
	return err
}
