// Package ca is the authority of a domain: who makes the identities of portals,
// relays and of the server itself, and whose certificates count.
//
// Who issues is an Issuer: the built-in CA (Authority), whose key lies in a file,
// encrypted if the operator likes, and which may be a root or an intermediate of a
// root that is elsewhere; or a command (Command) that hands requests to a CA of
// the operator's own. Whose certificates count is the Bundle, of which the store
// keeps one version and portals and relays are told.
//
// A leaf names one identity, as a URI, and nothing else (package identity). It
// may do what its role does and no more: a server's certificate serves, a
// portal's and a relay's do both, because portals are client and server of each
// other's tunnels, and a relay dials the server and serves its shared port.
package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	// Backdate is how long before its making a certificate begins, for
	// machines whose clocks are behind; of one that lasts less than ten times as
	// long it is a tenth of its life, so that "two thirds of its life" means about
	// the same counted from its beginning as from its making.
	Backdate = time.Hour
	// rootLife is how long a new authority lasts.
	rootLife = 10 * 365 * day
	// rootPath and middlePath are how many CAs may stand below a root and below an
	// intermediate: one more than is in use, so that either can vouch for its
	// successor.
	rootPath, middlePath = 2, 1

	day = 24 * time.Hour
)

// Issuer makes certificates.
type Issuer interface {
	// Issue makes a certificate and returns its chain: the leaf, then what lies
	// between it and the trusted authorities.
	Issue(ctx context.Context, o Order) ([]*x509.Certificate, error)
}

// Order is what a certificate is to say.
type Order struct {
	Role   identity.Role
	Name   string
	Public crypto.PublicKey
	// Request is the PKCS #10 request, DER, of the key's holder. Only Command
	// looks at it; what it says beside the key counts for nothing.
	Request []byte
	Life    time.Duration
	// Begin is when the certificate begins at the earliest: not before a
	// revocation of its name. Zero: Backdate ago.
	Begin time.Time
	// Held is the serial number of the certificate that the key's holder has, as bytes;
	// empty: he has none. Only an issuer that keeps what it has issued looks at it.
	Held string
}

// Authority is an Issuer that holds a key. It is constant once made, and safe for
// concurrent use.
type Authority struct {
	Domain      string
	Certificate *x509.Certificate
	// Above is what goes along with every leaf, the certificate of this authority
	// first if it is not one that is trusted itself.
	Above []*x509.Certificate

	key crypto.Signer
	now func() time.Time
}

// New makes the root of a domain with a key of its own. now is the clock of all it
// issues.
func New(domain string, now func() time.Time) (*Authority, error) {
	if err := identity.CheckName(domain); err != nil {
		return nil, fmt.Errorf("make a CA: domain: %w", err)
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	at := now()
	template := authorityTemplate(pkix.Name{CommonName: fmt.Sprintf("Netport CA of %s, %s %x", domain, at.UTC().Format(time.DateOnly), serial().Bytes()[1:3])}, rootPath, at, at.Add(rootLife))
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return &Authority{Domain: domain, Certificate: cert, key: key, now: now}, nil
}

func authorityTemplate(subject pkix.Name, path int, at, end time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: subject,
		NotBefore: at.Add(-Backdate), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: path, MaxPathLenZero: path == 0,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Use makes an authority of a certificate and its key.
func Use(domain string, cert *x509.Certificate, above []*x509.Certificate, key crypto.Signer, now func() time.Time) (*Authority, error) {
	if !cert.IsCA {
		return nil, fmt.Errorf("use %q as a CA: it is none", cert.Subject.CommonName)
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		return nil, fmt.Errorf("use CA %q: the key is not its own", cert.Subject.CommonName)
	}
	return &Authority{Domain: domain, Certificate: cert, Above: above, key: key, now: now}, nil
}

// Load reads an authority of a domain from its certificate and key files, and the
// file of the key's passphrase if it is encrypted. What stands between it and a root in
// the certificate file goes along with every leaf.
func Load(domain, certFile, keyFile, passphraseFile string, now func() time.Time) (*Authority, error) {
	certs, err := identity.LoadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	key, err := LoadKey(keyFile, passphraseFile)
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if cert.IsCA && samePublic(cert.PublicKey, key.Public()) {
			return &Authority{Domain: domain, Certificate: cert, Above: between(cert, certs), key: key, now: now}, nil
		}
	}
	return nil, fmt.Errorf("use CA key %s: no CA certificate in %s is its own", keyFile, certFile)
}

// between returns what goes along with the leaves of an authority: itself and the other
// intermediates of its file; nothing if it is a root.
func between(own *x509.Certificate, list []*x509.Certificate) []*x509.Certificate {
	if selfSigned(own) {
		return nil
	}
	above := []*x509.Certificate{own}
	for _, c := range list {
		if c != own && c.IsCA && !selfSigned(c) {
			above = append(above, c)
		}
	}
	return above
}

// Key returns the private key, to be saved beside the certificate.
func (a *Authority) Key() crypto.Signer { return a.key }

// Issue implements Issuer. No certificate lasts longer than the authority itself.
func (a *Authority) Issue(_ context.Context, o Order) ([]*x509.Certificate, error) {
	id, err := identity.New(a.Domain, o.Role, o.Name)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	at := a.now()
	if at.After(a.Certificate.NotAfter) {
		return nil, fmt.Errorf("issue a certificate for %s: the CA ended on %s: make a new one with init, or set the clock", id, a.Certificate.NotAfter.Format(time.DateOnly))
	}
	begin := at.Add(-min(Backdate, o.Life/10))
	if begin.Before(o.Begin) {
		begin = o.Begin
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: o.Name}, // for people; nothing looks at it
		NotBefore:             begin,
		NotAfter:              earlier(at.Add(o.Life), a.Certificate.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           identity.Usages(o.Role),
	}
	template.URIs = append(template.URIs, id.URL())
	cert, err := sign(template, a.Certificate, o.Public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	return append([]*x509.Certificate{cert}, a.Above...), nil
}

// Vouch signs the key of another authority: who trusts only this one then takes
// what the other issues. It lasts as long as both.
func (a *Authority) Vouch(for_ *x509.Certificate) (*x509.Certificate, error) {
	if !for_.IsCA {
		return nil, fmt.Errorf("vouch for %q: it is no CA", for_.Subject.CommonName)
	}
	template := authorityTemplate(for_.Subject, 0, a.now(), earlier(for_.NotAfter, a.Certificate.NotAfter))
	cert, err := sign(template, a.Certificate, for_.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("vouch for %q: %w", for_.Subject.CommonName, err)
	}
	return cert, nil
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

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
