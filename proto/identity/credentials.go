package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Credentials are what one role proves itself with, and whom it trusts. Their
// identity is constant; certificate, key, authorities and revocations may change
// while they are used, and every handshake takes those of its moment.
type Credentials struct {
	ID ID

	now     func() time.Time
	revoked Revocations
	current atomic.Pointer[holding]

	mu sync.Mutex // held by who changes current
}

// holding is what Credentials hold at one moment. It is constant once made.
type holding struct {
	certificate tls.Certificate // chain and private key
	key         KeyHash
	authorities []*x509.Certificate // that are trusted
	roots       *x509.CertPool      // the same
	known       *x509.CertPool      // the same, and those trusted earlier
}

// Load reads the credentials of a role: cert.pem (leaf first, then any
// intermediates), key.pem and ca.pem. The key must be a regular file that only
// its owner can read. now is the clock of all certificate checks; nil is
// time.Now.
func Load(certFile, keyFile, caFile string, role Role, now func() time.Time) (*Credentials, error) {
	return LoadWith(KeyFiles{}, certFile, keyFile, caFile, role, now)
}

// LoadWith is Load for a key that need not be in its file.
func LoadWith(keys Keys, certFile, keyFile, caFile string, role Role, now func() time.Time) (*Credentials, error) {
	certPEM, err := ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	key, err := keys.Load(keyFile)
	if err != nil {
		return nil, err
	}
	caPEM, err := ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	chain, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", certFile, err)
	}
	cas, err := ParseCertificates(caPEM)
	if err != nil {
		return nil, fmt.Errorf("read CA %s: %w", caFile, err)
	}
	c, err := NewCredentials(chain, key, cas, now)
	if err != nil {
		return nil, fmt.Errorf("use certificate %s: %w", certFile, err)
	}
	if c.ID.Role != role {
		return nil, fmt.Errorf("use certificate %s: it is of a %s (%s), a %s's is needed", certFile, c.ID.Role, c.ID, role)
	}
	return c, nil
}

// NewCredentials joins a chain (leaf first), its key and the CA certificates.
// Neither the leaf nor a CA need be valid yet or any more: that is judged in
// each handshake.
func NewCredentials(chain []*x509.Certificate, key crypto.Signer, cas []*x509.Certificate, now func() time.Time) (*Credentials, error) {
	if now == nil {
		now = time.Now
	}
	id, err := FromCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	h := holding{known: x509.NewCertPool()}
	if err := h.prove(chain, key); err != nil {
		return nil, err
	}
	if err := h.trust(cas); err != nil {
		return nil, err
	}
	c := &Credentials{ID: id, now: now}
	c.current.Store(&h)
	return c, nil
}

// Renew replaces certificate and key, for every handshake from now on. The chain
// (leaf first) must be of the same identity; a nil key is the key that is held.
func (c *Credentials) Renew(chain []*x509.Certificate, key crypto.Signer) error {
	id, err := FromCertificate(chain[0])
	if err != nil {
		return err
	}
	if id != c.ID {
		return fmt.Errorf("the new certificate is of %s, not of %s", id, c.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := *c.current.Load()
	if key == nil {
		key = h.certificate.PrivateKey.(crypto.Signer)
	}
	if err := h.prove(chain, key); err != nil {
		return err
	}
	c.current.Store(&h)
	return nil
}

// Trust replaces the CA certificates. What was proven under one that is gone is
// not unproven by it: Revoke is for that.
func (c *Credentials) Trust(cas []*x509.Certificate) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := *c.current.Load()
	h.known = h.known.Clone()
	if err := h.trust(cas); err != nil {
		return err
	}
	c.current.Store(&h)
	return nil
}

// Revocations are what no handshake of these credentials accepts.
func (c *Credentials) Revocations() *Revocations { return &c.revoked }

// prove takes a chain and its key.
func (h *holding) prove(chain []*x509.Certificate, key crypto.Signer) error {
	pub, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return errors.New("the private key is not the one of this certificate")
	}
	h.key = HashKey(chain[0])
	h.certificate = tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		h.certificate.Certificate = append(h.certificate.Certificate, cert.Raw)
	}
	return nil
}

// trust takes the CA certificates. One that has expired vouches for nothing,
// which each handshake finds out by itself.
func (h *holding) trust(cas []*x509.Certificate) error {
	if len(cas) == 0 {
		return errors.New("no CA to trust")
	}
	h.authorities, h.roots = cas, x509.NewCertPool()
	for _, ca := range cas {
		if !ca.IsCA {
			return fmt.Errorf("CA file holds %q, which is not a CA", shorten(ca.Subject.String()))
		}
		h.roots.AddCert(ca)
		h.known.AddCert(ca)
	}
	return nil
}

// Now returns the time by the clock of the credentials.
func (c *Credentials) Now() time.Time { return c.now() }

// Certificate returns the chain and the key that are held now.
func (c *Credentials) Certificate() tls.Certificate { return c.current.Load().certificate }

// Key returns the hash of the key that is held now.
func (c *Credentials) Key() KeyHash { return c.current.Load().key }

// Leaf returns the certificate itself that is held now.
func (c *Credentials) Leaf() *x509.Certificate { return c.current.Load().certificate.Leaf }

// Authorities returns the CA certificates that are trusted now.
func (c *Credentials) Authorities() []*x509.Certificate { return c.current.Load().authorities }
