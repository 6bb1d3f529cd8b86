// Package ca is the certificate authority that is built into the server: it
// makes the identities of portals, relays and of the server itself.
//
// A leaf names one identity, as a URI, and nothing else (package identity). It
// may do what its role does and no more: a server's certificate serves, a
// portal's and a relay's do both, because portals are client and server of each
// other's tunnels, and a relay dials the server and serves its shared port.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	// Backdate is how long before its making a certificate begins, for
	// machines whose clocks are behind.
	Backdate = time.Hour
	// Life is how long a new authority lasts.
	Life = 10 * 365 * 24 * time.Hour

	day = 24 * time.Hour
)

// Authority signs certificates. It is constant once made, and safe for
// concurrent use.
type Authority struct {
	Domain      string
	Certificate *x509.Certificate

	key crypto.Signer
	now func() time.Time
}

// New makes the authority of a domain with a key of its own. now is the clock
// of all it issues.
func New(domain string, now func() time.Time) (*Authority, error) {
	if err := identity.CheckName(domain); err != nil {
		return nil, fmt.Errorf("make a CA: domain: %w", err)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	at := now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Netport CA of " + domain},
		NotBefore:             at.Add(-Backdate),
		NotAfter:              at.Add(Life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1, // room for one intermediate, when the key moves off the server
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return &Authority{Domain: domain, Certificate: cert, key: key, now: now}, nil
}

// Load reads the authority of a domain from its certificate and key files.
func Load(domain, certFile, keyFile string, now func() time.Time) (*Authority, error) {
	certs, err := identity.LoadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	key, err := identity.LoadKey(keyFile)
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if ok && cert.IsCA && pub.Equal(key.Public()) {
			return &Authority{Domain: domain, Certificate: cert, key: key, now: now}, nil
		}
	}
	return nil, fmt.Errorf("use CA key %s: no CA certificate in %s is its own", keyFile, certFile)
}

// Key returns the private key, to be saved beside the certificate.
func (a *Authority) Key() crypto.Signer { return a.key }

// Issue makes a certificate for the holder of the public key, valid from
// Backdate ago for the given number of days, and never longer than the
// authority itself.
func (a *Authority) Issue(role identity.Role, name string, public crypto.PublicKey, days int) (*x509.Certificate, error) {
	id, err := identity.New(a.Domain, role, name)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	var usage []x509.ExtKeyUsage
	switch role {
	case identity.Server:
		usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case identity.Portal, identity.Relay:
		usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	default:
		return nil, fmt.Errorf("issue a certificate for %s: no rule says what this role may do", id)
	}
	at := a.now()
	if at.After(a.Certificate.NotAfter) {
		return nil, fmt.Errorf("issue a certificate for %s: the CA ended on %s: make a new one with init, or set the clock", id, a.Certificate.NotAfter.Format(time.DateOnly))
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name}, // for people; nothing looks at it
		NotBefore:             at.Add(-Backdate),
		NotAfter:              earlier(at.Add(time.Duration(days)*day), a.Certificate.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
	}
	template.URIs = append(template.URIs, id.URL())
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	return x509.ParseCertificate(der)
}

// CheckDays reports why a certificate cannot last so many days.
func CheckDays(days int) error {
	if most := int(Life / day); days < 1 || days > most {
		return errors.New("a certificate lasts 1 to " + fmt.Sprint(most) + " days")
	}
	return nil
}

// NewKey makes a private key: ECDSA on P-256.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// serial returns a random serial number of 128 bits, the highest of which is
// set, so that all are of one length and none is zero (RFC 5280, 4.1.2.2).
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] |= 0x80
	return new(big.Int).SetBytes(b[:])
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
