package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Credentials are what one role proves itself with, and whom it trusts.
// They are constant once made.
type Credentials struct {
	ID          ID
	Key         KeyHash
	Certificate tls.Certificate // chain and private key
	Roots       *x509.CertPool

	now func() time.Time
}

// Load reads the credentials of a role: cert.pem (leaf first, then any
// intermediates), key.pem and ca.pem. The key must be a regular file that only
// its owner can read. now is the clock of all certificate checks; nil is
// time.Now.
func Load(certFile, keyFile, caFile string, role Role, now func() time.Time) (*Credentials, error) {
	certPEM, err := ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	key, err := LoadKey(keyFile)
	if err != nil {
		return nil, err
	}
	caPEM, err := ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	chain, err := parseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", certFile, err)
	}
	cas, err := parseCertificates(caPEM)
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
// The leaf need not be valid yet or any more: the peer judges that.
func NewCredentials(chain []*x509.Certificate, key crypto.Signer, cas []*x509.Certificate, now func() time.Time) (*Credentials, error) {
	if now == nil {
		now = time.Now
	}
	id, err := FromCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	pub, ok := chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("the private key is not the one of this certificate")
	}
	c := &Credentials{ID: id, Key: HashKey(chain[0]), Roots: x509.NewCertPool(), now: now}
	c.Certificate.PrivateKey, c.Certificate.Leaf = key, chain[0]
	for _, cert := range chain {
		c.Certificate.Certificate = append(c.Certificate.Certificate, cert.Raw)
	}
	for _, ca := range cas {
		if !ca.IsCA {
			return nil, fmt.Errorf("CA file holds %q, which is not a CA", ca.Subject)
		}
		if at := now(); at.Before(ca.NotBefore) || at.After(ca.NotAfter) {
			continue // an expired CA beside a valid one vouches for nothing
		}
		c.Roots.AddCert(ca)
	}
	if c.Roots.Equal(x509.NewCertPool()) {
		return nil, fmt.Errorf("no CA in the CA file is valid at %s: check the clock", now().UTC().Format(time.RFC3339))
	}
	return c, nil
}

// Now returns the time by the clock of the credentials.
func (c *Credentials) Now() time.Time { return c.now() }

// Leaf returns the certificate itself.
func (c *Credentials) Leaf() *x509.Certificate { return c.Certificate.Leaf }

// LoadKey reads a private key in PKCS #8 PEM form. The file must be a regular
// one that only its owner can read, and belong to the user of this process.
func LoadKey(file string) (crypto.Signer, error) {
	b, err := readFile(file, maxFile, checkSecret)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, fmt.Errorf("read key %s: no PEM block in it", file)
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("read key %s: it is encrypted; decrypt it with \"openssl pkey\"", file)
	case block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("read key %s: it must hold one PEM block of type PRIVATE KEY (PKCS #8) and nothing else", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key %s: a key of type %T cannot sign", file, key)
	}
	return signer, nil
}

// SaveKey writes a new private key with mode 0600. It never overwrites a file.
func SaveKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	return CreateFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// EncodeCertificates returns certificates as PEM.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

// LoadCertificates reads a PEM file of 1 to 16 certificates.
func LoadCertificates(file string) ([]*x509.Certificate, error) {
	b, err := ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("read certificates %s: %w", file, err)
	}
	return certs, nil
}

const maxCertificates = 16

func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		b = bytes.TrimSpace(b)
		if len(b) == 0 {
			break
		}
		if !bytes.HasPrefix(b, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("something in it is no PEM CERTIFICATE block")
		}
		// pem.Decode skips a broken block and goes on searching; here a file
		// is whole blocks and nothing between them. So it gets one at a time.
		const end = "-----END CERTIFICATE-----"
		n := bytes.Index(b, []byte(end))
		if n < 0 {
			return nil, errors.New("a PEM block in it has no end")
		}
		block, rest := pem.Decode(b[:n+len(end)])
		if block == nil || len(rest) > 0 || bytes.Count(b[:n], []byte("-----BEGIN")) > 1 {
			return nil, errors.New("a PEM block in it is broken")
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
		b = b[n+len(end):]
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}
