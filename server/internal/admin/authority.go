package admin

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/store"
)

// authoritiesKey is the store's key of the bundle. The configuration's CA file is what
// it begins with.
const authoritiesKey = "authorities"

// authority is the domain's authority.
type authority struct {
	mu       sync.RWMutex // guards the following
	bundle   ca.Bundle
	revision uint64    // of the bundle in the store
	issuer   ca.Issuer // nil: certificates are issued elsewhere
	// In strict mode: the bundle as it was signed last, maybe an older one, and its
	// revision in the store.
	signed         wire.Authorities
	signedRevision uint64
}

// openAuthority reads whom the domain trusts, and makes ready who issues.
func (s *Service) openAuthority() error {
	e, err := s.store.Get(authoritiesKey)
	if err != nil {
		return err
	}
	var b ca.Bundle
	if e.Revision > 0 {
		b, err = ca.ParseBundle(e.Value)
	} else {
		b, err = s.firstBundle()
	}
	if err != nil {
		return err
	}
	changed, err := s.fit(&b)
	if err != nil {
		return err
	}
	if changed {
		b.Version++
	}
	if changed || e.Revision == 0 {
		value, err := b.Encode()
		if err != nil {
			return err
		}
		if e.Revision, err = s.store.Commit(store.Change{Put: map[string][]byte{authoritiesKey: value}, If: map[string]uint64{authoritiesKey: e.Revision}}); err != nil {
			return err
		}
	}
	issuer, err := s.issuerOf(b)
	if err != nil {
		return err
	}
	s.authority.bundle, s.authority.revision, s.authority.issuer = b, e.Revision, issuer
	return s.loadSigned()
}

// fit lets a bundle say who issues by the configuration, which may have changed: who
// has a certificate of another authority renews it early, and must not do so for one
// that issues no more. It reports whether it changed anything.
func (s *Service) fit(b *ca.Bundle) (bool, error) {
	switch {
	case !s.builtIn() && b.Issuer != nil:
		*b = ca.Bundle{Version: b.Version, Trusted: b.Trusted}
		return true, nil
	case s.builtIn() && b.Issuer == nil:
		key, err := ca.LoadKey(s.Config.CAKey, s.Config.CAPassphrase)
		if err != nil {
			return false, err
		}
		for _, c := range b.Trusted {
			if _, err := ca.Use(s.Config.Domain, c, nil, key, s.now); err == nil {
				version := b.Version
				*b = ca.First(b.Trusted, c)
				b.Version = version
				return true, nil
			}
		}
		return false, fmt.Errorf("use CA key %s: no authority that is trusted is its own; see \"netport-server ca trust\"", s.Config.CAKey)
	}
	return false, nil
}

// Waits reports whether certificates wait for an operator who signs them where the CA key
// is: there is none here, nor a program that asks for them, nor does a CA elsewhere give
// portals theirs by itself.
func (s *Service) Waits() bool {
	return s.Config.CAKey == "" && len(s.Config.CACommand) == 0 && !s.Config.AcceptElsewhere
}

// builtIn reports whether certificates are made with a key of this machine.
func (s *Service) builtIn() bool { return len(s.Config.CACommand) == 0 && s.Config.CAKey != "" }

func (s *Service) firstBundle() (ca.Bundle, error) {
	trusted, err := identity.LoadCertificates(s.Config.CA)
	if err != nil {
		return ca.Bundle{}, err
	}
	if !s.builtIn() {
		return ca.First(trusted, nil), nil
	}
	own, err := ca.Load(s.Config.Domain, s.Config.CA, s.Config.CAKey, s.Config.CAPassphrase, s.now)
	if err != nil {
		return ca.Bundle{}, err
	}
	return ca.First(trusted, own.Certificate), nil
}

// issuerOf returns who issues under a bundle; nil if that is done elsewhere.
func (s *Service) issuerOf(b ca.Bundle) (ca.Issuer, error) {
	switch {
	case len(s.Config.CACommand) > 0:
		return ca.NewCommand(s.Config.Domain, s.Config.CACommand, func() []*x509.Certificate { return s.Bundle().Trusted }, s.now), nil
	case s.Waits():
		return s.pending, nil
	case !s.builtIn() || b.Issuer == nil:
		return nil, nil
	}
	key, err := ca.LoadKey(s.authorityKeyFile(b.KeyFile), s.Config.CAPassphrase)
	if err != nil {
		return nil, err
	}
	return ca.Use(s.Config.Domain, b.Issuer, b.Above, key, s.now)
}

// authorityKeyFile returns the path of an authority's key: those that were made later
// lie beside the first.
func (s *Service) authorityKeyFile(name string) string {
	if name == "" {
		return s.Config.CAKey
	}
	return filepath.Join(filepath.Dir(s.Config.CAKey), name)
}

// Bundle returns whom the domain trusts now.
func (s *Service) Bundle() ca.Bundle {
	s.authority.mu.RLock()
	defer s.authority.mu.RUnlock()
	return s.authority.bundle
}

// Issues reports whether certificates can be had from this server.
func (s *Service) Issues() bool {
	s.authority.mu.RLock()
	defer s.authority.mu.RUnlock()
	return s.authority.issuer != nil
}

// Authorities returns the bundle as portals and relays are told it. In strict mode it
// is the one that was signed last, and Version 0 if none was.
func (s *Service) Authorities() wire.Authorities {
	if s.signer == nil {
		s.authority.mu.RLock()
		defer s.authority.mu.RUnlock()
		return s.authority.signed
	}
	return s.unsigned().Sign(s.signer)
}

// unsigned returns the bundle as it is to be signed.
func (s *Service) unsigned() wire.Authorities { return unsigned(s.Bundle()) }

func unsigned(b ca.Bundle) wire.Authorities {
	m := wire.Authorities{Version: b.Version, Issuing: b.Issuing}
	for _, c := range b.Trusted {
		m.Certificates = append(m.Certificates, c.Raw)
	}
	return m
}

var errIssuesElsewhere = errors.New("this server issues no certificates (it has neither ca_key nor ca_command): have it signed where the CA is")

// issue makes a certificate, and says what the registry is to know of it. held is the
// serial number of the one that who asks has. Where it has to be signed elsewhere the error has
// pending.ErrWaits.
func (s *Service) issue(ctx context.Context, role identity.Role, name string, public crypto.PublicKey, request []byte, held string) ([]*x509.Certificate, registry.Enrolment, error) {
	s.authority.mu.RLock()
	issuer := s.authority.issuer
	s.authority.mu.RUnlock()
	if issuer == nil {
		return nil, registry.Enrolment{}, fmt.Errorf("issue a certificate for %s %s: %w", role, name, errIssuesElsewhere)
	}
	chain, err := issuer.Issue(ctx, ca.Order{
		Role: role, Name: name, Public: public, Request: request,
		Life: s.Config.Live().CertificateLife, Begin: s.Registry.Begin(role, name), Held: held,
	})
	if err != nil {
		return nil, registry.Enrolment{}, err
	}
	if !wire.CheckCertificates(raw(chain)) {
		return nil, registry.Enrolment{}, fmt.Errorf("issue a certificate for %s %s: the chain is too long to be sent", role, name)
	}
	return chain, registry.EnrolmentOf(chain, s.signerOf(chain), s.now()), nil
}

// signerOf returns the key of the authority that signed a leaf.
func (s *Service) signerOf(chain []*x509.Certificate) identity.KeyHash {
	for _, list := range [][]*x509.Certificate{chain[1:], s.Bundle().Trusted} {
		for _, c := range list {
			if chain[0].CheckSignatureFrom(c) == nil {
				return identity.HashKey(c)
			}
		}
	}
	return identity.KeyHash{}
}

// IssueServer makes a new certificate for the server itself; held is as with
// ca.Order.
func (s *Service) IssueServer(ctx context.Context, name string, key crypto.Signer, held string) ([]*x509.Certificate, error) {
	id, err := identity.New(s.Config.Domain, identity.Server, name)
	if err != nil {
		return nil, err
	}
	request, err := identity.NewRequest(id, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := s.issue(ctx, identity.Server, name, key.Public(), request, held)
	return chain, err
}

// install puts a bundle in force: on disk first, then here, then everybody is told.
// change is held.
func (s *Service) install(ctx context.Context, next ca.Bundle, what string) error {
	issuer, err := s.issuerOf(next)
	if err != nil {
		return err
	}
	value, err := next.Encode()
	if err != nil {
		return err
	}
	s.authority.mu.Lock()
	revision, err := s.store.Commit(store.Change{Put: map[string][]byte{authoritiesKey: value}, If: map[string]uint64{authoritiesKey: s.authority.revision}})
	if err == nil {
		s.authority.bundle, s.authority.revision, s.authority.issuer = next, revision, issuer
	}
	s.authority.mu.Unlock()
	if err != nil {
		return fmt.Errorf("change the authorities: %w", err)
	}
	s.note(ctx, audit.Record{Event: "authority", Answer: audit.Done, Version: next.Version, Detail: what})
	s.authoritiesChanged()
	return nil
}

// joinRoot returns the authority by which who joins knows this server: the one above
// its own certificate.
func (s *Service) joinRoot() (*x509.Certificate, error) {
	chain, err := identity.LoadCertificates(s.Config.Certificate)
	if err != nil {
		return nil, err
	}
	last := chain[len(chain)-1]
	for _, c := range s.Bundle().Trusted {
		if last.Equal(c) || last.CheckSignatureFrom(c) == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the server's own certificate %s is under no authority that is trusted; see \"netport-server ca status\"", s.Config.Certificate)
}

func raw(chain []*x509.Certificate) [][]byte {
	list := make([][]byte, len(chain))
	for i, c := range chain {
		list[i] = c.Raw
	}
	return list
}

// keptAuthority is a trusted authority as the operator is shown it.
type keptAuthority struct {
	Name     string           `json:"name"`
	Key      identity.KeyHash `json:"key"`
	NotAfter time.Time        `json:"not_after"`
	Issuing  bool             `json:"issuing"`
	Portals  int              `json:"portals"` // whose certificates it, or one below it, signed
	Relays   int              `json:"relays"`
	Admins   int              `json:"admins"`
}

// CAStatus is the domain's authority as the operator is shown it.
type CAStatus struct {
	Version     uint64           `json:"version"`
	Mode        string           `json:"mode"` // built-in, command, operator or elsewhere
	Issuing     identity.KeyHash `json:"issuing,omitzero"`
	Issuer      string           `json:"issuer,omitempty"`
	IssuerEnds  time.Time        `json:"issuer_not_after,omitzero"`
	KeyFile     string           `json:"key_file,omitempty"`
	Life        string           `json:"certificate_life"`
	Authorities []keptAuthority  `json:"authorities"`
	// Behind are the portals, relays and admins whose certificates another authority signed
	// than the one that issues now.
	Behind []string `json:"behind"`
	// Pending are the certificates that wait for the CA key, the oldest first.
	Pending []pendingCertificate `json:"pending,omitempty"`
}

// pendingCertificate is one that waits, as the operator is shown it.
type pendingCertificate struct {
	Role  identity.Role    `json:"role"`
	Name  string           `json:"name"`
	Key   identity.KeyHash `json:"key"`
	Since time.Time        `json:"since"`
}

// CAStatus returns the domain's authority.
func (s *Service) CAStatus(struct{}) (CAStatus, error) {
	b := s.Bundle()
	waiting, _, err := s.pending.Waiting()
	if err != nil {
		return CAStatus{}, err
	}
	v := CAStatus{Version: b.Version, Mode: "elsewhere", Issuing: b.Issuing, Life: conffile.FormatDuration(s.Config.Live().CertificateLife), Behind: []string{}}
	switch {
	case len(s.Config.CACommand) > 0:
		v.Mode = "command"
	case s.Waits():
		v.Mode = "operator"
	case b.Issuer != nil && s.builtIn():
		v.Mode, v.KeyFile = "built-in", s.authorityKeyFile(b.KeyFile)
	}
	if b.Issuer != nil {
		v.Issuer, v.IssuerEnds = b.Issuer.Subject.CommonName, b.Issuer.NotAfter
	}
	for _, q := range waiting {
		v.Pending = append(v.Pending, pendingCertificate{Role: q.Role, Name: q.Name, Key: q.Key, Since: q.Since})
	}
	counts := make(map[identity.KeyHash][3]int)
	note := func(i int, kind, name string, e registry.Enrolment) {
		n := counts[e.Issuer]
		n[i]++
		counts[e.Issuer] = n
		if !b.Issuing.IsZero() && e.Issuer != b.Issuing {
			v.Behind = append(v.Behind, kind+" "+name)
		}
	}
	for _, p := range s.Registry.Portals() {
		note(0, "portal", p.Name, p.Enrolment)
	}
	for _, r := range s.Registry.Relays() {
		note(1, "relay", r.Name, r.Enrolment)
	}
	for _, a := range s.Registry.Admins() {
		note(2, "admin", a.Name, a.Enrolment)
	}
	for _, c := range b.Trusted {
		key := identity.HashKey(c)
		n := counts[key]
		if b.Issuer != nil && key != b.Issuing && b.Issuer.CheckSignatureFrom(c) == nil { // what the intermediate signed rests on it
			below := counts[b.Issuing]
			n[0], n[1], n[2] = n[0]+below[0], n[1]+below[1], n[2]+below[2]
		}
		v.Authorities = append(v.Authorities, keptAuthority{Name: c.Subject.CommonName, Key: key, NotAfter: c.NotAfter, Issuing: key == b.Issuing, Portals: n[0], Relays: n[1], Admins: n[2]})
	}
	return v, nil
}
