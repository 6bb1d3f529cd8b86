package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxFile is the largest key, certificate or CA file that is read.
const maxFile = 1 << 20

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

// LoadKey reads a private key in PKCS #8 PEM form.
func LoadKey(file string) (crypto.Signer, error) {
	if err := CheckSecret(file); err != nil {
		return nil, err
	}
	b, err := ReadFile(file)
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
		// pem.Decode searches for the next block, again and again, in a file of
		// broken ones; here a file is blocks and nothing between them.
		if !bytes.HasPrefix(b, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("something that is no PEM CERTIFICATE block")
		}
		block, rest := pem.Decode(b)
		if block == nil || len(rest) >= len(b) || block.Type != "CERTIFICATE" {
			return nil, errors.New("a broken PEM block")
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
		b = rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}

// ReadFile reads a small regular file: no directory, pipe or device, at most
// 1 MiB.
func ReadFile(file string) ([]byte, error) { return ReadFileLimit(file, maxFile) }

// ReadFileLimit is ReadFile with a limit of its own, in bytes.
func ReadFileLimit(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, reason(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, reason(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, reason(err))
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", file, limit)
	}
	return b, nil
}

// CreateFile writes a new file with exactly the given mode and flushes it to
// disk; it never overwrites one.
func CreateFile(file string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write %s: it exists already; move it away or name another folder", file)
		}
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask took or left
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(file)
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	return nil
}

// ReplaceFile writes a file so that after a crash it is the old one or the new
// one, whole: a temporary file, flushed, then renamed.
func ReplaceFile(file string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	return nil
}

// reason strips the path that package os puts before its errors: the caller
// names the file already.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
