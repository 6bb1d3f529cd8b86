// Package identitytest makes identities for tests: what the server's CA makes
// for real ones.
package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Domain is the domain of all identities made here.
const Domain = "example.org"

// Authority is a CA.
type Authority struct {
	Certificate *x509.Certificate

	t   testing.TB
	key *ecdsa.PrivateKey
	now func() time.Time
}

// New makes a CA for the test t.
func New(t testing.TB) *Authority {
	t.Helper()
	return At(t, time.Now)
}

// At makes a CA whose clock is now.
func At(t testing.TB, now func() time.Time) *Authority {
	t.Helper()
	a := &Authority{t: t, now: now}
	a.key = a.newKey()
	a.Certificate = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.key.Public())
	return a
}

func (a *Authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.NotBefore, template.NotAfter = a.now().Add(-time.Hour), a.now().Add(30*24*time.Hour)
	parent := a.Certificate
	if parent == nil {
		parent = template
		template.NotAfter = template.NotAfter.AddDate(10, 0, 0)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// Leaf makes a certificate and its key.
func (a *Authority) Leaf(role identity.Role, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	id, err := identity.New(Domain, role, name)
	if err != nil {
		a.t.Fatal(err)
	}
	key := a.newKey()
	return a.Issue(id, key.Public()), key
}

// Issue makes a certificate for a key.
func (a *Authority) Issue(id identity.ID, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	return a.sign(&x509.Certificate{
		URIs: []*url.URL{id.URL()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, public)
}

// Credentials makes an identity that is ready to use, with the clock of the CA.
func (a *Authority) Credentials(role identity.Role, name string) *identity.Credentials {
	a.t.Helper()
	cert, key := a.Leaf(role, name)
	c, err := identity.NewCredentials([]*x509.Certificate{cert}, key, []*x509.Certificate{a.Certificate}, a.now)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Enrol writes cert.pem, key.pem and ca.pem of a new identity into a new
// folder, as "netport-server issue" does, and returns it.
func (a *Authority) Enrol(role identity.Role, name string) (dir string) {
	a.t.Helper()
	cert, key := a.Leaf(role, name)
	dir = a.t.TempDir()
	for _, err := range []error{
		identity.CreateFile(filepath.Join(dir, "cert.pem"), identity.EncodeCertificates(cert), 0o644),
		identity.CreateFile(filepath.Join(dir, "ca.pem"), identity.EncodeCertificates(a.Certificate), 0o644),
		identity.SaveKey(filepath.Join(dir, "key.pem"), key),
	} {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}
