package admin

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/registry"
)

// CARoll makes a new root of the domain's own, which issues from now on. The old one
// vouches for it, so that who has not heard of it takes its certificates, until the
// old one is dropped.
func (s *Service) CARoll(ctx context.Context, _ struct{}) (CAStatus, error) {
	s.change.Lock()
	defer s.change.Unlock()
	b := s.Bundle()
	old, err := s.ownAuthority("roll the CA")
	if err != nil {
		return CAStatus{}, err
	}
	switch {
	case !b.Has(b.Issuing):
		return CAStatus{}, errors.New("roll the CA: the authority that issues is an intermediate: request a new one from its root (netport-server ca request)")
	case len(b.Above) > 0:
		return CAStatus{}, errors.New("roll the CA: the last roll-over is not finished: drop the old authority first (netport-server ca status, ca drop)")
	}
	next, err := ca.New(s.Config.Domain, s.now)
	if err != nil {
		return CAStatus{}, err
	}
	vouched, err := old.Vouch(next.Certificate)
	if err != nil {
		return CAStatus{}, err
	}
	name := keyFileOf(identity.HashKey(next.Certificate))
	bundle, err := b.Install([]*x509.Certificate{next.Certificate}, name, vouched, s.now())
	if err != nil {
		return CAStatus{}, fmt.Errorf("roll the CA: %w", err)
	}
	file := s.authorityKeyFile(name)
	if err := ca.SaveKey(file, next.Key(), s.Config.CAPassphrase); err != nil {
		return CAStatus{}, err
	}
	if err := s.install(ctx, bundle, "rolled over to "+bundle.Issuing.String()); err != nil {
		os.Remove(file)
		return CAStatus{}, err
	}
	return s.CAStatus(struct{}{})
}

// ownAuthority returns the authority whose key is here.
func (s *Service) ownAuthority(what string) (*ca.Authority, error) {
	s.authority.mu.RLock()
	defer s.authority.mu.RUnlock()
	if own, ok := s.authority.issuer.(*ca.Authority); ok {
		return own, nil
	}
	return nil, fmt.Errorf("%s: no CA key is here (ca_key, ca_command): do it where the key is", what)
}

// keyFileOf names the key file of an authority that was made after the first.
func keyFileOf(key identity.KeyHash) string { return "ca-" + hex.EncodeToString(key[:4]) + ".key" }

// CARequested is a request for an intermediate.
type CARequested struct {
	Request string `json:"request"` // PEM
	KeyFile string `json:"key_file"`
}

// CARequest makes the key of an intermediate here and the request for its
// certificate, to be signed where the root is.
func (s *Service) CARequest(ctx context.Context, _ struct{}) (CARequested, error) {
	if s.Config.CAKey == "" {
		return CARequested{}, errors.New("request an intermediate: ca_key is empty: name the file beside which its key is to lie")
	}
	key, err := ca.NewKey()
	if err != nil {
		return CARequested{}, err
	}
	request, err := ca.NewRequest(s.Config.Domain, key, s.now())
	if err != nil {
		return CARequested{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return CARequested{}, err
	}
	file := s.authorityKeyFile(keyFileOf(hashPublic(public)))
	if err := ca.SaveKey(file, key, s.Config.CAPassphrase); err != nil {
		return CARequested{}, err
	}
	s.note(ctx, audit.Record{Event: "authority", Answer: audit.Waiting, Detail: "an intermediate is asked for, whose key is in " + file})
	return CARequested{Request: string(request), KeyFile: file}, nil
}

// CAInstallRequest is the answer to a request: the certificate of the intermediate
// and what is above it, the root last; PEM.
type CAInstallRequest struct {
	Chain string `json:"chain"`
}

// CAInstall has an intermediate issue from now on, whose key CARequest made.
func (s *Service) CAInstall(ctx context.Context, r CAInstallRequest) (CAStatus, error) {
	s.change.Lock()
	defer s.change.Unlock()
	chain, err := identity.ParseCertificates([]byte(r.Chain))
	if err != nil {
		return CAStatus{}, fmt.Errorf("install an authority: %w", err)
	}
	own := identity.HashKey(chain[0])
	name := keyFileOf(own)
	key, err := ca.LoadKey(s.authorityKeyFile(name), s.Config.CAPassphrase)
	if err != nil {
		return CAStatus{}, fmt.Errorf("install an authority: the key that \"ca request\" made for %q is needed: %w", chain[0].Subject.CommonName, err)
	}
	if _, err := ca.Use(s.Config.Domain, chain[0], nil, key, s.now); err != nil {
		return CAStatus{}, fmt.Errorf("install an authority: %w", err)
	}
	b := s.Bundle()
	bundle, err := b.Install(chain, name, s.vouch(b, chain), s.now())
	if err != nil {
		return CAStatus{}, fmt.Errorf("install an authority: %w", err)
	}
	// Whoever has not heard of a new root would take nobody's certificate under it.
	if len(bundle.Trusted) > len(b.Trusted) && len(bundle.Above) == len(chain)-1 {
		return CAStatus{}, fmt.Errorf("install an authority: nobody knows its root yet, and no CA key is here that could vouch for it: first \"netport-server ca trust\" the root, and wait until all portals have been connected")
	}
	if err := s.install(ctx, bundle, "the intermediate "+own.String()+" issues"); err != nil {
		return CAStatus{}, err
	}
	return s.CAStatus(struct{}{})
}

// vouch signs the new authority with the old one if that is trusted itself and the
// new one's root is not.
func (s *Service) vouch(b ca.Bundle, chain []*x509.Certificate) *x509.Certificate {
	old, err := s.ownAuthority("vouch")
	if err != nil || !b.Has(b.Issuing) {
		return nil
	}
	for _, c := range chain {
		if b.Has(identity.HashKey(c)) {
			return nil
		}
	}
	vouched, err := old.Vouch(chain[0])
	if err != nil {
		return nil
	}
	return vouched
}

// CATrustRequest names authorities; PEM.
type CATrustRequest struct {
	Certificates string `json:"certificates"`
}

// CATrust makes authorities count that are elsewhere.
func (s *Service) CATrust(ctx context.Context, r CATrustRequest) (CAStatus, error) {
	s.change.Lock()
	defer s.change.Unlock()
	list, err := identity.ParseCertificates([]byte(r.Certificates))
	if err != nil {
		return CAStatus{}, fmt.Errorf("trust an authority: %w", err)
	}
	bundle, err := s.Bundle().Trust(list, s.now())
	if err != nil {
		return CAStatus{}, fmt.Errorf("trust an authority: %w", err)
	}
	if err := s.install(ctx, bundle, fmt.Sprintf("%d authorities are trusted", len(bundle.Trusted))); err != nil {
		return CAStatus{}, err
	}
	return s.CAStatus(struct{}{})
}

// CADropRequest names a trusted authority by the digits its key begins with.
type CADropRequest struct {
	Key   string `json:"key"`
	Force bool   `json:"force"` // although certificates count that it signed
}

// CADrop makes an authority count no more. Unless forced, it waits until nobody has a
// certificate by it.
func (s *Service) CADrop(ctx context.Context, r CADropRequest) (CAStatus, error) {
	s.change.Lock()
	defer s.change.Unlock()
	key, err := s.trustedKey(r.Key)
	if err != nil {
		return CAStatus{}, fmt.Errorf("drop an authority: %w", err)
	}
	if left := s.under(key); len(left) > 0 && !r.Force {
		return CAStatus{}, fmt.Errorf("drop an authority: %d still have certificates by it, such as %s: they renew them when they are connected; --force shuts them out", len(left), left[0])
	}
	bundle, err := s.Bundle().Drop(key)
	if err != nil {
		return CAStatus{}, fmt.Errorf("drop an authority: %w", err)
	}
	if err := s.install(ctx, bundle, "the authority "+key.String()+" is dropped"); err != nil {
		return CAStatus{}, err
	}
	return s.CAStatus(struct{}{})
}

// trustedKey finds a trusted authority by the first digits of its key.
func (s *Service) trustedKey(digits string) (identity.KeyHash, error) {
	var found identity.KeyHash
	if len(digits) < 8 {
		return found, errors.New("give at least 8 digits of its key; see \"netport-server ca status\"")
	}
	for _, c := range s.Bundle().Trusted {
		key := identity.HashKey(c)
		text, _ := key.MarshalText()
		if !strings.HasPrefix(string(text), strings.ToLower(digits)) {
			continue
		}
		if !found.IsZero() {
			return found, fmt.Errorf("more than one key begins with %s", digits)
		}
		found = key
	}
	if found.IsZero() {
		return found, fmt.Errorf("no trusted authority has a key that begins with %s; see \"netport-server ca status\"", digits)
	}
	return found, nil
}

// under lists who has a certificate that counts no more without a trusted authority.
func (s *Service) under(key identity.KeyHash) []string {
	b := s.Bundle()
	rests := func(e registry.Enrolment) bool {
		return e.Issuer == key || b.Issuer != nil && e.Issuer != b.Issuing && !b.Has(e.Issuer)
	}
	var left []string
	for _, p := range s.Registry.Portals() {
		if rests(p.Enrolment) {
			left = append(left, "portal "+p.Name)
		}
	}
	for _, r := range s.Registry.Relays() {
		if rests(r.Enrolment) {
			left = append(left, "relay "+r.Name)
		}
	}
	for _, a := range s.Registry.Admins() {
		if rests(a.Enrolment) {
			left = append(left, "admin "+a.Name)
		}
	}
	return left
}

func hashPublic(der []byte) identity.KeyHash { return sha256.Sum256(der) }
