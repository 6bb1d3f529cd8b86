// Package identitytest makes identities for tests: what the server's CA makes
// for real ones.
package identitytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Domain is the domain of all identities here.
const Domain = "test.example"

// Authority is a CA.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New returns a new CA.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.issue(template)
	return a
}

func (a *Authority) issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// Enrol writes cert.pem, key.pem and ca.pem of a new identity into a new
// folder, and returns it.
func (a *Authority) Enrol(role identity.Role, name string) (dir string) {
	a.t.Helper()
	cert, key := a.issue(&x509.Certificate{
		URIs:        []*url.URL{{Scheme: "spiffe", Host: Domain, Path: "/" + string(role) + "/" + name}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	dir = a.t.TempDir()
	for _, err := range []error{
		identity.CreateFile(filepath.Join(dir, "cert.pem"), identity.EncodeCertificates(cert), 0o644),
		identity.CreateFile(filepath.Join(dir, "ca.pem"), identity.EncodeCertificates(a.cert), 0o644),
		identity.SaveKey(filepath.Join(dir, "key.pem"), key),
	} {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}

// Credentials returns those of a new identity.
func (a *Authority) Credentials(role identity.Role, name string) *identity.Credentials {
	a.t.Helper()
	dir := a.Enrol(role, name)
	c, err := identity.Load(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), role, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}
