package admin

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/store"
	"github.com/netport/netport/server/internal/strict"
)

// signedKey is the store's key of the authorities as they were signed last, in strict
// mode.
const signedKey = "authorities-signed"

// loadPolicyKey returns the policy key; the secret half is nil where it is elsewhere.
func loadPolicyKey(cfg *config.Config) (ed25519.PrivateKey, ed25519.PublicKey, error) {
	if cfg.PolicyPublic != nil {
		return nil, cfg.PolicyPublic, nil
	}
	signer, err := LoadSigner(cfg.PolicyKey)
	if err != nil {
		return nil, nil, err
	}
	return signer, signer.Public().(ed25519.PublicKey), nil
}

func openRegistry(domain string, s store.Store, signer ed25519.PrivateKey, public ed25519.PublicKey) (*registry.Registry, error) {
	if signer == nil {
		return registry.OpenStrict(domain, s, public, time.Now)
	}
	return registry.Open(domain, s, signer, time.Now)
}

// loadSigned reads the authorities as they were signed last.
func (s *Service) loadSigned() error {
	e, err := s.store.Get(signedKey)
	if err != nil || s.signer != nil || e.Revision == 0 {
		return err
	}
	m, err := wire.ParseAuthorities(e.Value)
	if err != nil || !m.SignedBy(s.public) {
		return fmt.Errorf("read state: the signed authorities are broken, or policy_key is another key: put the old one back")
	}
	s.authority.signed, s.authority.signedRevision = m, e.Revision
	return nil
}

// keepFirstSigned has a new server know its authority as the policy key signs it.
func keepFirstSigned(s store.Store, authority *x509.Certificate, key ed25519.PrivateKey) error {
	m := unsigned(ca.First([]*x509.Certificate{authority}, nil)).Sign(key) // whose key is elsewhere
	_, err := s.Commit(store.Change{Put: map[string][]byte{signedKey: m.AppendTo(nil)}, If: map[string]uint64{signedKey: 0}})
	return err
}

// SignRequest says what is to be signed where the policy key is.
func (s *Service) SignRequest(struct{}) (strict.Request, error) {
	if !s.Registry.Strict() {
		return strict.Request{}, fmt.Errorf("request signatures: the policy key is here (%s): netport-server policy apply signs with it", s.Config.PolicyKey)
	}
	q := strict.Request{
		Domain: s.Config.Domain, PolicyKey: s.Registry.PolicyKey(), Version: s.Registry.Applied().Version + 1,
		Openings: s.Registry.Pending(), Authorities: s.unsigned().AppendTo(nil),
	}
	for _, p := range s.Registry.Portals() {
		q.Portals = append(q.Portals, strict.Portal{Name: p.Name, Key: p.Key, Next: p.Next})
	}
	for _, r := range s.Registry.Relays() {
		q.Relays = append(q.Relays, r.Name)
	}
	for _, a := range s.Registry.Admins() {
		q.Admins = append(q.Admins, a.Name)
	}
	return q, nil
}

// InstallRequest asks to put in force what was signed elsewhere.
type InstallRequest struct {
	strict.Signed
	// Anew has what was signed take the place of what is in force and says the same:
	// portals take it back though they had lost it.
	Anew bool `json:"anew,omitempty"`
}

// InstallSigned puts in force what was signed elsewhere, if every signature is right and
// its version is above the one in force.
func (s *Service) InstallSigned(ctx context.Context, r InstallRequest) (PolicyResult, error) {
	result, err := s.installSigned(ctx, r)
	if err != nil {
		s.note(ctx, audit.Record{Event: "policy", Answer: audit.Refused, Detail: err.Error()})
		return result, err
	}
	s.broughtSigned()
	return result, nil
}

func (s *Service) installSigned(ctx context.Context, r InstallRequest) (PolicyResult, error) {
	s.change.Lock()
	defer s.change.Unlock()
	if !s.Registry.Strict() {
		return PolicyResult{}, errors.New("install policy: the policy key is here: netport-server policy apply")
	}
	o, err := strict.Open(r.Signed, s.Config.Domain, s.public)
	if err != nil {
		return PolicyResult{}, fmt.Errorf("install policy: %w", err)
	}
	p, err := policy.ParseAgain(o.File, []byte(o.Source), s.now(), o.Zones)
	if err != nil {
		return PolicyResult{}, fmt.Errorf("install policy: %w", err)
	}
	waited := s.Registry.Pending()
	diff, err := s.Registry.Install(p, o.File, []byte(o.Source), registry.Signed{Complete: o.Complete, Grants: o.Permissions, For: o.For, Anew: r.Anew})
	if err != nil {
		return PolicyResult{}, err
	}
	s.changed(diff)
	s.auditOpened(ctx, waited, diff.Version)
	s.note(ctx, audit.Record{Event: "policy", Answer: audit.Done, Version: diff.Version,
		Detail: fmt.Sprintf("%s, signed elsewhere at %s: %d grants added, %d removed, %d unchanged, %d wait", o.File, o.Time.Format(time.RFC3339), len(diff.Added), len(diff.Removed), diff.Kept, diff.Waiting)})
	result := PolicyResult{
		Forwards: len(p.Forwards), Grants: s.Registry.Grants(), Warnings: p.WarningLines(),
		Applied: true, Version: diff.Version, Added: len(diff.Added), Removed: len(diff.Removed), Unchanged: diff.Kept,
	}
	if diff.Waiting > 0 {
		result.Warnings = append(result.Warnings, fmt.Sprintf("%d grants wait for a signature: of new keys, or of what is allowed on request (netport-server policy request)", diff.Waiting))
	}
	return result, s.installAuthorities(ctx, o.Authorities)
}

// auditOpened writes down which of the openings that waited are open now.
func (s *Service) auditOpened(ctx context.Context, waited []policy.Opening, version uint64) {
	left := s.Registry.Pending()
	for _, o := range waited {
		if !slices.Contains(left, o) {
			s.note(ctx, audit.Record{Event: "allow", Answer: audit.Granted, Forward: o.Forward, Portal: o.Only, Version: version,
				Detail: fmt.Sprintf("until %s by %s, signed elsewhere", o.Until.Format(time.RFC3339), o.By)})
		}
	}
}

// installAuthorities keeps the signed authorities and tells everybody, if they are those
// that count now.
func (s *Service) installAuthorities(ctx context.Context, m wire.Authorities) error {
	now := s.unsigned()
	now.Signature = m.Signature
	if !bytes.Equal(now.AppendTo(nil), m.AppendTo(nil)) || m.Version == s.Authorities().Version {
		return nil
	}
	s.authority.mu.Lock()
	revision, err := s.store.Commit(store.Change{Put: map[string][]byte{signedKey: m.AppendTo(nil)}, If: map[string]uint64{signedKey: s.authority.signedRevision}})
	if err == nil {
		s.authority.signed, s.authority.signedRevision = m, revision
	}
	s.authority.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keep the signed authorities: %w", err)
	}
	s.note(ctx, audit.Record{Event: "authority", Answer: audit.Done, Version: m.Version, Detail: "signed elsewhere"})
	s.authoritiesChanged()
	return nil
}

// Unsigned says what waits for a signature, in strict mode: grants, the authorities, and
// the portals of which a key is new since the last one.
func (s *Service) Unsigned() (grants int, authorities bool, portals []string) {
	return s.Registry.Waiting(), s.signer == nil && s.Authorities().Version != s.Bundle().Version, s.Registry.Unsigned()
}
