package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/netport/netport/proto/folder"
)

// LoadKey reads a private key in PKCS #8 PEM form. The file must be a regular
// one that only its owner can read, and belong to the user of this process.
func LoadKey(file string) (crypto.Signer, error) {
	b, err := readFile(file, maxFile, folder.CheckSecret)
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
	certs, err := ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("read certificates %s: %w", file, err)
	}
	return certs, nil
}

const maxCertificates = 16

// ParseCertificates reads PEM: 1 to 16 certificates, and nothing between them.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
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
