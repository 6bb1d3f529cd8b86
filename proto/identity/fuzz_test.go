package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
)

// FuzzPEM has files of certificates: what is read is what is written, and of whoever is named in it.
func FuzzPEM(f *testing.F) {
	ca := newCA(f, nil, "CA", nil)
	f.Add(EncodeCertificates(ca.cert))
	f.Add(bytes.ReplaceAll(EncodeCertificates(newLeaf(f, &ca, Portal, "p", nil).cert, ca.cert), []byte("\n"), []byte("\r\n")))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := ParseCertificates(b)
		if err != nil {
			return
		}
		again, err := ParseCertificates(EncodeCertificates(certs...))
		if err != nil || len(again) != len(certs) {
			t.Fatalf("%d certificates, and %d of what was written of them: %v", len(certs), len(again), err)
		}
		for i, c := range certs {
			if !again[i].Equal(c) {
				t.Fatalf("certificate %d became another", i)
			}
		}
	})
}

// FuzzCertificate has certificates as a handshake brings them: each is judged, and one that is taken is of one
// identity, in its one writing.
func FuzzCertificate(f *testing.F) {
	ca := newCA(f, nil, "CA", nil)
	middle := newCA(f, &ca, "Middle", nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	f.Add(newLeaf(f, &ca, Portal, "p", nil).cert.Raw, middle.cert.Raw)
	f.Add(newLeaf(f, &middle, Server, "s", nil).cert.Raw, middle.cert.Raw)
	f.Add(newLeaf(f, &ca, Portal, "p", withURI(f, "SPIFFE://example.org/portal/p")).cert.Raw, ca.cert.Raw)
	f.Fuzz(func(t *testing.T, leaf, above []byte) {
		chain, err := ParseChain([][]byte{leaf, above})
		if err != nil {
			return
		}
		p, chains, err := verifyChain(chain, roots, testNow, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return
		}
		if id, err := Parse(p.ID.String()); err != nil || id != p.ID || p.Key != HashKey(chain[0]) {
			t.Fatalf("taken as %v: %v", p.ID, err)
		}
		var revoked Revocations
		revoked.Add(Revocation{Epoch: 1, Key: HashKey(ca.cert)})
		if revoked.Check(chains) == nil {
			t.Fatal("taken though its authority is revoked")
		}
	})
}

// FuzzNames has the list of names in a certificate or a request.
func FuzzNames(f *testing.F) {
	for _, s := range oddURIs[:20] {
		f.Add(sanExtension(f, uriName(s)).Value)
	}
	f.Add(sanExtension(f, uriName("spiffe://example.org/portal/a")).Value)
	f.Add(sanExtension(f, uriName("spiffe://example.org/portal/a"), generalName(2, "a")).Value)
	f.Fuzz(func(t *testing.T, value []byte) {
		id, err := identityIn([]pkix.Extension{{Id: subjectAltName, Value: value}})
		if err != nil {
			return
		}
		if want := sanExtension(t, uriName(id.String())).Value; !bytes.Equal(want, value) {
			t.Fatalf("%x was read as %v, which is written %x", value, id, want)
		}
	})
}

// FuzzRequest has certificate requests, of anybody.
func FuzzRequest(f *testing.F) {
	for _, key := range []crypto.Signer{newKey(f), edKey(f)} {
		der, err := NewRequest(ID{"example.org", Relay, "r"}, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err != nil {
			return
		}
		if id, err := Parse(r.ID.String()); err != nil || id != r.ID || r.Key != HashPublic(r.Public) {
			t.Fatalf("read as %+v: %v", r, err)
		}
	})
}
