package identity

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"
)

// MaxRevocations is the most revocations that are held at once.
const MaxRevocations = 100000

// ErrRevoked is in the error about every certificate that was revoked.
var ErrRevoked = errors.New("revoked")

// errManyRevocations is returned where another revocation finds no room.
var errManyRevocations = fmt.Errorf("more than %d revocations", MaxRevocations)

// Revocation takes back one of three:
//
//   - all certificates of a name that began before a time (Role, Name, Before),
//     so that a name that is invited anew gets one that begins then or later;
//   - all certificates with a key, of a leaf or of an authority (Key): whoever
//     encodes a certificate anew, or alters its signature, has the key still;
//   - the one certificate with a serial number, of an authority with a key
//     (Issuer, Serial).
//
// Epochs count the revocations of a domain from 1 on.
type Revocation struct {
	Epoch uint64

	Role   Role
	Name   string
	Before time.Time // whole seconds

	Key KeyHash

	Issuer KeyHash
	Serial string // the bytes of the number, big endian, without leading zeros; at most MaxSerial
}

// MaxSerial is the longest serial number that can be revoked, in bytes: RFC 5280
// allows 20, and some authorities write more.
const MaxSerial = 40

// Check reports why r is no revocation.
func (r Revocation) Check() error {
	name, key, one := r.Name != "" || r.Role != "" || !r.Before.IsZero(), !r.Key.IsZero(), !r.Issuer.IsZero() || r.Serial != ""
	switch {
	case r.Epoch == 0:
		return errors.New("a revocation without an epoch")
	case name && !key && !one:
		if _, err := New("any", r.Role, r.Name); err != nil {
			return fmt.Errorf("a revocation: %w", err)
		}
		if r.Before.Unix() <= 0 || r.Before.Nanosecond() != 0 || r.Before.Year() > 9999 {
			return fmt.Errorf("a revocation of what began before %v", r.Before)
		}
	case one && !name && !key:
		if r.Issuer.IsZero() || r.Serial == "" || len(r.Serial) > MaxSerial || r.Serial[0] == 0 {
			return errors.New("a revocation of a serial number that is none")
		}
	case key && !name && !one:
	default:
		return errors.New("a revocation of not exactly one thing")
	}
	return nil
}

// String says what is revoked.
func (r Revocation) String() string {
	switch {
	case r.Name != "":
		return fmt.Sprintf("certificates of %s %s from before %s", r.Role, r.Name, r.Before.UTC().Format(time.RFC3339))
	case !r.Key.IsZero():
		return "the key " + r.Key.String()
	}
	return fmt.Sprintf("the certificate %x of the authority %s", r.Serial, r.Issuer)
}

type (
	named struct {
		role Role
		name string
	}
	numbered struct {
		issuer KeyHash
		number string
	}
)

// Revocations is a set of revocations; the zero Revocations is empty. What was
// added is never taken out. It may be used by several goroutines at once.
type Revocations struct {
	mu      sync.RWMutex // guards the following
	epoch   uint64
	names   map[named]Revocation
	keys    map[KeyHash]Revocation
	serials map[numbered]Revocation
}

// Add puts revocations into the set. One that is held already changes nothing.
// It fails, after having added the others, where one is wrong or has no room.
func (s *Revocations) Add(list ...Revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for _, r := range list {
		if err := s.addLocked(r); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

func (s *Revocations) addLocked(r Revocation) error {
	if err := r.Check(); err != nil {
		return err
	}
	if s.names == nil {
		s.names, s.keys, s.serials = map[named]Revocation{}, map[KeyHash]Revocation{}, map[numbered]Revocation{}
	}
	full := len(s.names)+len(s.keys)+len(s.serials) >= MaxRevocations
	switch {
	case r.Name != "":
		at := named{r.Role, r.Name}
		old, held := s.names[at]
		if !held && full {
			return errManyRevocations
		}
		if !held || old.Before.Before(r.Before) {
			s.names[at] = r
		}
	case !r.Key.IsZero():
		if _, held := s.keys[r.Key]; !held {
			if full {
				return errManyRevocations
			}
			s.keys[r.Key] = r
		}
	default:
		at := numbered{r.Issuer, r.Serial}
		if _, held := s.serials[at]; !held {
			if full {
				return errManyRevocations
			}
			s.serials[at] = r
		}
	}
	s.epoch = max(s.epoch, r.Epoch)
	return nil
}

// Epoch returns the highest epoch in the set; 0: it is empty.
func (s *Revocations) Epoch() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epoch
}

// After returns the revocations of epochs above the given one, in their order.
func (s *Revocations) After(epoch uint64) []Revocation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Revocation
	add := func(r Revocation) {
		if r.Epoch > epoch {
			list = append(list, r)
		}
	}
	for _, r := range s.names {
		add(r)
	}
	for _, r := range s.keys {
		add(r)
	}
	for _, r := range s.serials {
		add(r)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.String(), b.String())) < 0
	})
	return list
}

// Check returns nil if one of the verified chains (leaf first, root last) has
// nothing in it that was revoked; else an error with ErrRevoked.
func (s *Revocations) Check(chains [][]*x509.Certificate) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var failed error
	for _, chain := range chains {
		err := s.checkLocked(chain)
		if err == nil {
			return nil
		}
		failed = err
	}
	return failed
}

func (s *Revocations) checkLocked(chain []*x509.Certificate) error {
	if id, err := FromCertificate(chain[0]); err == nil {
		if r, held := s.names[named{id.Role, id.Name}]; held && chain[0].NotBefore.Before(r.Before) {
			return fmt.Errorf("%w: %s", ErrRevoked, r)
		}
	}
	for i, cert := range chain {
		if r, held := s.keys[HashKey(cert)]; held {
			if i > 0 {
				return fmt.Errorf("%w: %s, an authority's", ErrRevoked, r)
			}
			return fmt.Errorf("%w: %s", ErrRevoked, r)
		}
		if i+1 == len(chain) {
			break
		}
		if r, held := s.serials[numbered{HashKey(chain[i+1]), string(cert.SerialNumber.Bytes())}]; held {
			return fmt.Errorf("%w: %s", ErrRevoked, r)
		}
	}
	return nil
}

// Recheck reports whether a peer that was accepted has been revoked since: nil,
// or an error with ErrRevoked. presented is what it proved itself with, leaf
// first. Neither time nor a change of the trusted authorities counts here.
func (c *Credentials) Recheck(presented []*x509.Certificate) error {
	if len(presented) == 0 {
		return nil
	}
	// Of two authorities that could have signed it, one may be revoked: so what
	// counts are the chains that verify, at a time when all of it was valid.
	at := c.now()
	opts := x509.VerifyOptions{Roots: c.current.Load().known, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for i, cert := range presented[:min(len(presented), MaxChain)] {
		if i > 0 {
			opts.Intermediates.AddCert(cert)
		}
		if at.After(cert.NotAfter) {
			at = cert.NotAfter
		}
		if at.Before(cert.NotBefore) {
			at = cert.NotBefore
		}
	}
	opts.CurrentTime = at
	chains, err := presented[0].Verify(opts)
	if err != nil { // its authority has expired since, and ends it in its own way
		chains = [][]*x509.Certificate{presented}
	}
	return c.revoked.Check(chains)
}
