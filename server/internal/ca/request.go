package ca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// middleLife is how long an intermediate lasts that an offline root signs.
const middleLife = 2 * 365 * day

// NewRequest makes the request, PEM, of an intermediate authority of a domain.
func NewRequest(domain string, key crypto.Signer, now time.Time) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "Netport issuing CA of " + domain + ", " + now.UTC().Format(time.DateOnly)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("request an intermediate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ParseRequest reads a request, PEM, and checks that its sender holds the key.
func ParseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("read request: it must be one PEM block of type CERTIFICATE REQUEST and nothing else")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return r, nil
}

// Sign makes the certificate of an intermediate for whoever holds the request's key.
// Of the request only the name and the key are taken. life 0 is two years.
func (a *Authority) Sign(r *x509.CertificateRequest, life time.Duration) (*x509.Certificate, error) {
	if life == 0 {
		life = middleLife
	}
	at := a.now()
	if at.After(a.Certificate.NotAfter) {
		return nil, fmt.Errorf("sign an intermediate: the CA ended on %s", a.Certificate.NotAfter.Format(time.DateOnly))
	}
	path := middlePath
	if most := a.Certificate.MaxPathLen; most >= 0 && path > most-1 { // -1: any
		path = most - 1
	}
	if path < 0 {
		return nil, errors.New("sign an intermediate: this CA may have no CA below it (its path length is 0)")
	}
	cert, err := sign(authorityTemplate(pkix.Name{CommonName: r.Subject.CommonName}, path, at, earlier(at.Add(life), a.Certificate.NotAfter)), a.Certificate, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign an intermediate: %w", err)
	}
	return cert, nil
}
