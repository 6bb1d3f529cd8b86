package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/url"
)

// MaxRequest is the longest certificate request that is read, in bytes.
const MaxRequest = 4096

// Request is a certificate request (PKCS #10, RFC 2986) that was checked: who
// sent it has the private key and asks for this identity. Whether it is his is
// for the authority to know.
type Request struct {
	ID     ID
	Public crypto.PublicKey
	Key    KeyHash
}

// NewRequest returns the request of an identity for its key, as DER.
func NewRequest(id ID, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request of %s: %w", id, err)
	}
	return der, nil
}

// ParseRequest reads a request and checks it: its key is of a kind that
// certificates may have, it has signed the request, and exactly one identity is
// asked for. Whatever else it asks for is not looked at.
func ParseRequest(der []byte) (Request, error) {
	if len(der) > MaxRequest {
		return Request{}, fmt.Errorf("certificate request of %d bytes: at most %d are allowed", len(der), MaxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fmt.Errorf("read a certificate request: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil { // first: it bounds what the signature costs
		return Request{}, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("certificate request: %w", err)
	}
	id, err := identityIn(csr.Extensions)
	if err != nil {
		return Request{}, fmt.Errorf("certificate request: %w", err)
	}
	return Request{ID: id, Public: csr.PublicKey, Key: sha256.Sum256(csr.RawSubjectPublicKeyInfo)}, nil
}
