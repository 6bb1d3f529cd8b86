package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"
)

// testNow is the time of all certificates in the tests.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func testClock() time.Time { return testNow }

var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}

// holder is a certificate with its private key.
type holder struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificate signs a template; a zero field gets a fitting value, and change
// spoils it. A nil signer is the certificate itself.
func certificate(t testing.TB, signer *holder, key crypto.Signer, template x509.Certificate, change func(*x509.Certificate)) holder {
	t.Helper()
	template.SerialNumber = big.NewInt(7)
	template.NotBefore, template.NotAfter = testNow.Add(-time.Hour), testNow.Add(time.Hour)
	if template.IsCA {
		template.BasicConstraintsValid = true
	}
	if change != nil {
		change(&template)
	}
	parent, signKey := &template, key
	if signer != nil {
		parent, signKey = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return holder{cert, key}
}

func newCA(t testing.TB, signer *holder, name string, change func(*x509.Certificate)) holder {
	t.Helper()
	return certificate(t, signer, newKey(t), x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLen: -1,
	}, change)
}

func newLeaf(t testing.TB, signer *holder, role Role, name string, change func(*x509.Certificate)) holder {
	t.Helper()
	id, err := New("example.org", role, name)
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, signer, newKey(t), x509.Certificate{
		Subject: pkix.Name{CommonName: "not looked at"}, URIs: []*url.URL{id.URL()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: bothUsages,
	}, change)
}

// with adds intermediates to a leaf.
func (h holder) with(above ...holder) []*x509.Certificate {
	chain := []*x509.Certificate{h.cert}
	for _, c := range above {
		chain = append(chain, c.cert)
	}
	return chain
}

func credentials(t testing.TB, chain []*x509.Certificate, key crypto.Signer, root holder) *Credentials {
	t.Helper()
	c, err := NewCredentials(chain, key, []*x509.Certificate{root.cert}, testClock)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// anyone admits every peer whose certificate is right.
func anyone(Peer) error { return nil }

// shake makes a connection over loopback and passes a byte each way. It
// returns what each side says of it. (Over net.Pipe, which holds no bytes, two
// sides that refuse each other at once would wait for each other.)
func shake(t testing.TB, client, server *tls.Config) (clientConn, serverConn *tls.Conn, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	t.Cleanup(func() { a.Close(); b.Close() })
	clientConn, serverConn = tls.Client(a, client), tls.Server(b, server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serverErr = exchange(serverConn)
		b.Close()
	}()
	clientErr = exchange(clientConn)
	a.Close()
	<-done
	return clientConn, serverConn, clientErr, serverErr
}

// exchange completes the handshake, then reads a byte while it writes one:
// only then do both know that the other took their certificate.
func exchange(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte{1})
		wrote <- err
	}()
	var one [1]byte
	if _, err := io.ReadFull(c, one[:]); err != nil {
		c.NetConn().Close()
		<-wrote
		return err
	}
	return <-wrote
}

// sanExtension is a subject alternative name made by hand.
func sanExtension(t testing.TB, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: subjectAltName, Value: value}
}

func generalName(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

func uriName(s string) asn1.RawValue { return generalName(tagURI, s) }

// withURI replaces the leaf's identity by raw text.
func withURI(t testing.TB, s string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs, c.ExtraExtensions = nil, []pkix.Extension{sanExtension(t, uriName(s))}
	}
}

func roleNames() []Role { return []Role{Portal, Server, Relay, Admin} }
