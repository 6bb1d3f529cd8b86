package daemon

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/ca"
)

// B72, B73: a key counts no more after it was replaced, whatever the serial and the signature of the certificate it comes
// with; and no other key goes with it, though it has the same serial.
func TestRevocationLooksAtTheKeyAlone(t *testing.T) {
	r := newRig(t, "witness", "ann", "bo", "relay-1")
	own, err := ca.Load("example.org", r.cfg.CA, r.cfg.CAKey, "", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ann, bo := r.credentials["ann"], r.credentials["bo"]
	plain := ann.Leaf()
	withSerial := func(of *identity.Credentials, name string, serial *big.Int) tls.Certificate {
		return resigned(t, own, of, name, serial)
	}
	long := new(big.Int).Lsh(big.NewInt(1), 40*8-2)
	forms := map[string]tls.Certificate{
		"serial 0":               withSerial(ann, "ann", big.NewInt(0)),
		"a negative serial":      withSerial(ann, "ann", big.NewInt(-1)),
		"a serial of 40 bytes":   withSerial(ann, "ann", long),
		"the serial of another":  withSerial(ann, "ann", own.Certificate.SerialNumber),
		"the other signature":    identitytest.Malleated(t, ann.Certificate()),
		"the one it was given":   ann.Certificate(),
		"a new one of that name": withSerial(ann, "ann", big.NewInt(7)),
	}
	const malformed = "a negative serial" // which crypto/x509 refuses
	for what, cert := range forms {
		if got, want := greeted(r, ann, cert), what != malformed; got != want {
			t.Errorf("%s: served = %t, want %t", what, got, want)
		}
	}
	same := withSerial(bo, "bo", plain.SerialNumber)
	r.issue("ann", true)
	for what, cert := range forms {
		if greeted(r, ann, cert) {
			t.Errorf("%s: served after the key was replaced", what)
		}
	}
	if !greeted(r, bo, same) {
		t.Error("another portal whose certificate has the same serial is not served")
	}
	r.wantServing()
}

// greeted reports whether the server welcomes a portal that comes with the certificate.
func greeted(r *rig, of *identity.Credentials, cert tls.Certificate) bool {
	r.t.Helper()
	cfg := of.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	c := tls.Client(r.raw(), cfg)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(hello); err != nil { // the server has refused the certificate by now
		return false
	}
	header := make([]byte, wire.ControlHeaderLen)
	if _, err := c.Read(header); err != nil {
		return false
	}
	kind, _, err := wire.ParseControlHeader(header)
	if err != nil {
		r.t.Fatal(err)
	}
	return kind == wire.TypeWelcome
}

// resigned is a certificate of our CA for a portal's own key, with any serial.
func resigned(t *testing.T, a *ca.Authority, of *identity.Credentials, name string, serial *big.Int) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Abs(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: uris("spiffe://example.org/portal/" + name),
	}
	key := of.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.Key())
	if err != nil {
		t.Fatal(err)
	}
	if serial.Sign() >= 0 {
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	// crypto/x509 makes none with a negative serial: one of a byte lies behind the version, which has five.
	return identitytest.Rebuilt(t, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, func(c *identitytest.Signed) {
		at := len(c.TBS.FullBytes) - len(c.TBS.Bytes) + 5
		if b := c.TBS.FullBytes[at:]; b[0] != asn1.TagInteger || b[1] != 1 {
			t.Fatalf("no serial of a byte in % x", b[:3])
		}
		c.TBS.FullBytes[at+2] = byte(serial.Int64())
		digest := sha256.Sum256(c.TBS.FullBytes)
		signature, err := a.Key().Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		c.Signature.Bytes, c.Signature.BitLength = signature, 8*len(signature)
	})
}
