package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestProvenPeersKnowEachOther(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	middle := newCA(t, &ca, "Intermediate", nil)
	p, s := newLeaf(t, &middle, Portal, "p", nil), newLeaf(t, &ca, Server, "s", nil)
	client, server := credentials(t, p.with(middle), p.key, ca), credentials(t, s.with(), s.key, ca)
	c, d, cerr, derr := shake(t, client.ClientTLS(ProtocolControl, Expect(Server, "s")), server.ServerTLS(ProtocolControl, Expect(Portal, "")))
	if cerr != nil || derr != nil {
		t.Fatalf("client: %v; server: %v", cerr, derr)
	}
	for _, tt := range []struct {
		conn *tls.Conn
		want Peer
	}{
		{c, Peer{server.ID, server.Key(), s.cert.NotAfter, string(s.cert.SerialNumber.Bytes())}},
		{d, Peer{client.ID, client.Key(), p.cert.NotAfter, string(p.cert.SerialNumber.Bytes())}},
	} {
		state := tt.conn.ConnectionState()
		got, err := PeerOf(state)
		if err != nil || got != tt.want {
			t.Errorf("peer %v, %v; want %v", got, err, tt.want)
		}
		if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != ProtocolControl || state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("version %#x, protocol %q, key exchange %v; want TLS 1.3, %q, X25519MLKEM768", state.Version, state.NegotiatedProtocol, state.CurveID, ProtocolControl)
		}
	}
	if got := client.Key(); got != sha256.Sum256(p.cert.RawSubjectPublicKeyInfo) {
		t.Errorf("key hash %s is not the SHA-256 of the public key", got)
	}
	if _, err := PeerOf(tls.ConnectionState{}); err == nil {
		t.Error("a connection that never shook hands has a peer")
	}
}

// TestRolesMatrix (T21, B69) presents every role where every role is expected, on both
// sides of a connection.
func TestRolesMatrix(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	me := newLeaf(t, &ca, Portal, "me", nil)
	own := credentials(t, me.with(), me.key, ca)
	for _, is := range roleNames() {
		h := newLeaf(t, &ca, is, "peer", nil)
		peer := credentials(t, h.with(), h.key, ca)
		for _, expected := range roleNames() {
			check := Expect(expected, "peer")
			_, _, _, dialled := shake(t, peer.ClientTLS(ProtocolTunnel, anyone), own.ServerTLS(ProtocolTunnel, check))
			_, _, dialling, _ := shake(t, own.ClientTLS(ProtocolTunnel, check), peer.ServerTLS(ProtocolTunnel, anyone))
			for side, err := range map[string]error{"as client": dialled, "as server": dialling} {
				if (err == nil) != (is == expected) {
					t.Errorf("a %s %s where a %s is expected: %v", is, side, expected, err)
				}
			}
		}
		if err := Expect(is, "other")(Peer{ID: peer.ID}); err == nil {
			t.Errorf("%s passes for the name other", peer.ID)
		}
	}
}

// TestCertificates (T22, B65-B71) presents good and bad chains as a client and as a server.
func TestCertificates(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	me := newLeaf(t, &ca, Portal, "me", nil)
	own := credentials(t, me.with(), me.key, ca)

	leaf := func(signer *holder, change func(*x509.Certificate)) holder {
		return newLeaf(t, signer, Portal, "p", change)
	}
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	valid := func(from, to time.Time) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
	}
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
	}
	otherDomain := func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/portal/p"}}
	}
	asCA := func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
	chain := func(h holder, above ...holder) func() ([]*x509.Certificate, crypto.Signer) {
		return func() ([]*x509.Certificate, crypto.Signer) { return h.with(above...), h.key }
	}
	ofKey := func(key crypto.Signer) func() ([]*x509.Certificate, crypto.Signer) {
		h := certificate(t, &ca, key, x509.Certificate{URIs: []*url.URL{own.ID.URL()}, ExtKeyUsage: bothUsages}, nil)
		return chain(h)
	}

	otherCA := newCA(t, nil, "CA", func(c *x509.Certificate) { c.SubjectKeyId = ca.cert.SubjectKeyId })
	middle := newCA(t, &ca, "Middle", nil)
	lower := newCA(t, &middle, "Lower", nil)
	lowest := newCA(t, &lower, "Lowest", nil)
	short := newCA(t, &ca, "Short", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	belowShort := newCA(t, &short, "Below", nil)
	oldMiddle := newCA(t, &ca, "Old", valid(testNow.Add(-2*time.Hour), testNow.Add(-time.Minute)))
	clientMiddle := newCA(t, &ca, "Email only", usage(x509.ExtKeyUsageEmailProtection))
	criticalMiddle := newCA(t, &ca, "Critical", critical)
	excluding := newCA(t, &ca, "Excluding", func(c *x509.Certificate) {
		c.ExcludedURIDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
	})
	signing := leaf(&ca, nil)
	self := leaf(nil, nil)

	for _, tt := range []struct {
		name    string
		present func() ([]*x509.Certificate, crypto.Signer)
		want    string // what the refusal says; empty: accepted
	}{
		{"good", chain(leaf(&ca, nil)), ""},
		{"good, through one intermediate", chain(leaf(&middle, nil), middle), ""},
		{"good, through three intermediates", chain(leaf(&lowest, nil), lowest, lower, middle), ""},
		{"good, with the root beside", chain(leaf(&ca, nil), ca), ""},
		{"good, with an intermediate it does not need", chain(leaf(&ca, nil), lower), ""},
		{"five certificates", chain(leaf(&lowest, nil), lowest, lower, middle, ca), "5 certificates"},
		{"intermediate missing", chain(leaf(&middle, nil)), "unknown authority"},
		{"middle of the chain missing", chain(leaf(&lower, nil), lower), "unknown authority"},

		{"self-signed", chain(self), "unknown authority"},
		{"self-signed, with itself as its CA", chain(self, self), "unknown authority"},
		{"CA of the same subject and key id", chain(leaf(&otherCA, nil)), "unknown authority"},
		{"CA of the same subject and key id, sent along", chain(leaf(&otherCA, nil), otherCA), "unknown authority"},
		{"another domain of the same CA", chain(leaf(&ca, otherDomain)), "not of our domain"},

		{"signed by a leaf", chain(leaf(&signing, nil), signing), "parent certificate cannot sign"},
		{"a CA as leaf", chain(leaf(&ca, asCA)), "is a CA's"},
		{"the CA itself", chain(ca), "is a CA's"},
		{"path length exceeded", chain(leaf(&belowShort, nil), belowShort, short), "too many intermediates"},
		{"unknown critical extension", chain(leaf(&ca, critical)), "unhandled critical extension"},
		{"intermediate with unknown critical extension", chain(leaf(&criticalMiddle, nil), criticalMiddle), "unhandled critical extension"},
		{"intermediate that may not sign for the domain", chain(leaf(&excluding, nil), excluding), "excluded"},
		{"intermediate for other usages", chain(leaf(&clientMiddle, nil), clientMiddle), "incompatible key usage"},

		{"no usage", chain(leaf(&ca, usage())), "no extended key usage"},
		{"any usage", chain(leaf(&ca, usage(x509.ExtKeyUsageAny))), "any extended key usage"},
		{"both usages and any", chain(leaf(&ca, usage(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageAny))), "any extended key usage"},
		{"usage for e-mail", chain(leaf(&ca, usage(x509.ExtKeyUsageEmailProtection))), "incompatible key usage"},

		{"expired a second ago", chain(leaf(&ca, valid(testNow.Add(-time.Hour), testNow.Add(-time.Second)))), "peer's certificate is valid from 2026-11-22T11:00:00Z to 2026-11-22T11:59:59Z, and the clock here says 2026-11-22T12:00:00Z"},
		{"valid in a second", chain(leaf(&ca, valid(testNow.Add(time.Second), testNow.Add(time.Hour)))), "clock here says 2026-11-22T12:00:00Z"},
		{"first second", chain(leaf(&ca, valid(testNow, testNow.Add(time.Hour)))), ""},
		{"last second", chain(leaf(&ca, valid(testNow.Add(-time.Hour), testNow))), ""},
		{"ends before it begins", chain(leaf(&ca, valid(testNow.Add(time.Hour), testNow.Add(-time.Hour)))), "clock"},
		{"until the year 9999", chain(leaf(&ca, valid(testNow, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)))), ""},
		{"from the year 1950", chain(leaf(&ca, valid(time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), testNow))), ""},
		{"until the year 1950", chain(leaf(&ca, valid(time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1950, 1, 2, 0, 0, 0, 0, time.UTC)))), "clock"},
		{"intermediate expired", chain(leaf(&oldMiddle, nil), oldMiddle), `CA certificate "CN=Old" above the peer's is valid from 2026-11-22T10:00:00Z`},

		{"two identities", chain(leaf(&ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, own.ID.URL()) })), "2 names"},
		{"upper-case scheme", chain(leaf(&ca, withURI(t, "SPIFFE://example.org/portal/p"))), "SPIFFE://"},
		{"fragment", chain(leaf(&ca, withURI(t, "spiffe://example.org/portal/p#"))), "portal/p#"},
		{"DNS name of a portal", chain(leaf(&ca, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"p"} })), "no URI"},

		{"RSA 2048", ofKey(rsaKey(t, 2048)), ""},
		{"RSA 1024", ofKey(junkSigner{rsaPublic(1024)}), "RSA key of 1024 bits"},
		{"RSA 4104", ofKey(junkSigner{rsaPublic(4104)}), "RSA key of 4104 bits"},
		{"RSA 8192", ofKey(junkSigner{rsaPublic(8192)}), "RSA key of 8192 bits"},
		{"RSA 16384", ofKey(junkSigner{rsaPublic(16384)}), "RSA key"},
		{"P-384", ofKey(ecKey(t, elliptic.P384())), ""},
		{"P-521", ofKey(ecKey(t, elliptic.P521())), "P-521"},
		{"Ed25519", ofKey(edKey(t)), ""},
		{"RSA intermediate of 16384 bits", func() ([]*x509.Certificate, crypto.Signer) {
			big := certificate(t, &ca, junkSigner{rsaPublic(16384)}, x509.Certificate{Subject: pkix.Name{CommonName: "Big"}, IsCA: true}, nil)
			l := leaf(&ca, nil)
			return l.with(big), l.key
		}, "RSA key larger than 8192 bits"},
	} {
		certs, key := tt.present()
		peer := presenting(own, certs, key)
		_, _, _, dialled := shake(t, peer.ClientTLS(ProtocolTunnel, anyone), own.ServerTLS(ProtocolTunnel, anyone))
		_, _, dialling, _ := shake(t, own.ClientTLS(ProtocolTunnel, anyone), peer.ServerTLS(ProtocolTunnel, anyone))
		for side, err := range map[string]error{"client": dialled, "server": dialling} {
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%s, as %s: %v", tt.name, side, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%s, as %s: error %v, want one with %q", tt.name, side, err, tt.want)
			}
		}
	}

	// The usage must fit the side.
	for _, tt := range []struct {
		usage            x509.ExtKeyUsage
		client, isServer bool
	}{{x509.ExtKeyUsageClientAuth, true, false}, {x509.ExtKeyUsageServerAuth, false, true}} {
		h := leaf(&ca, usage(tt.usage))
		peer := presenting(own, h.with(), h.key)
		_, _, _, dialled := shake(t, peer.ClientTLS(ProtocolTunnel, anyone), own.ServerTLS(ProtocolTunnel, anyone))
		_, _, dialling, _ := shake(t, own.ClientTLS(ProtocolTunnel, anyone), peer.ServerTLS(ProtocolTunnel, anyone))
		if (dialled == nil) != tt.client || (dialling == nil) != tt.isServer {
			t.Errorf("usage %d: as client %v, as server %v", tt.usage, dialled, dialling)
		}
	}
}

// presenting returns credentials that send any chain, as a stranger can.
func presenting(own *Credentials, chain []*x509.Certificate, key crypto.Signer) *Credentials {
	h := *own.current.Load()
	h.certificate = tls.Certificate{PrivateKey: key}
	for _, cert := range chain {
		h.certificate.Certificate = append(h.certificate.Certificate, cert.Raw)
	}
	c := &Credentials{ID: own.ID, now: own.now}
	c.current.Store(&h)
	return c
}

// junkSigner has a public key and cannot sign: a peer that burns the other's
// time with a key that nobody ever generated.
type junkSigner struct{ public crypto.PublicKey }

func (j junkSigner) Public() crypto.PublicKey { return j.public }
func (j junkSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, j.public.(*rsa.PublicKey).Size()), nil
}

func rsaPublic(bits int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits))
	return &rsa.PublicKey{N: n.Sub(n, big.NewInt(12345)), E: 65537}
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWeakAlgorithmsAreRefused (B71) has what no program makes any more: certificates
// whose bytes were changed to say so. What they say is judged before the
// signature itself.
func TestWeakAlgorithmsAreRefused(t *testing.T) {
	ca := certificate(t, nil, rsaKey(t, 2048), x509.Certificate{Subject: pkix.Name{CommonName: "RSA"}, IsCA: true}, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	// The last byte of the OID says which hash goes with RSA (RFC 8017).
	const sha256RSA, sha1RSA, md5RSA = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04"
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		oid  string
		want string
	}{
		{"SHA-256", newKey(t), sha256RSA, ""},
		{"SHA-1", newKey(t), sha1RSA, "insecure algorithm"},
		{"MD5", newKey(t), md5RSA, "insecure algorithm"},
		{"key on P-224", ecKey(t, elliptic.P224()), sha256RSA, "P-224"},
	} {
		h := certificate(t, &ca, tt.key, x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "d", Path: "/portal/p"}}, ExtKeyUsage: bothUsages}, nil)
		cert, err := x509.ParseCertificate([]byte(strings.ReplaceAll(string(h.cert.Raw), sha256RSA, tt.oid)))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = verifyChain([]*x509.Certificate{cert}, roots, testNow, x509.ExtKeyUsageClientAuth)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// T20: neither side takes less than TLS 1.3 with the protocol that is its own.
func TestTLSSettingsAreNotWeakened(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p, s := newLeaf(t, &ca, Portal, "p", nil), newLeaf(t, &ca, Server, "s", nil)
	client, server := credentials(t, p.with(), p.key, ca), credentials(t, s.with(), s.key, ca)
	change := func(c *Credentials, f func(*tls.Config)) *tls.Config {
		cfg := c.ClientTLS(ProtocolControl, anyone)
		cfg.VerifyConnection = nil // whatever the server says
		f(cfg)
		return cfg
	}
	for _, tt := range []struct {
		name   string
		client *tls.Config
		want   string // of the server's error
	}{
		{"TLS 1.2", change(client, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), "unsupported versions"},
		{"no ALPN", change(client, func(c *tls.Config) { c.NextProtos = nil }), `speaks protocol ""`},
		{"ALPN of the tunnel", change(client, func(c *tls.Config) { c.NextProtos = []string{ProtocolTunnel} }), "unsupported application protocols"},
		{"ALPN of the relay", change(client, func(c *tls.Config) { c.NextProtos = []string{ProtocolRelay} }), "unsupported application protocols"},
		{"ALPN http/1.1", change(client, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), "unsupported application protocols"},
		{"no certificate", change(client, func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		}), "didn't provide a certificate"},
	} {
		_, _, _, err := shake(t, tt.client, server.ServerTLS(ProtocolControl, anyone))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: server says %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*tls.Config)
		want   string // of the client's error
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, "protocol version"},
		{"no ALPN", func(c *tls.Config) { c.NextProtos = nil }, `speaks protocol ""`},
		{"ALPN of the tunnel", func(c *tls.Config) { c.NextProtos = []string{ProtocolTunnel} }, "no application protocol"},
	} {
		cfg := server.ServerTLS(ProtocolControl, anyone)
		cfg.VerifyConnection = nil
		tt.change(cfg)
		_, _, err, _ := shake(t, client.ClientTLS(ProtocolControl, anyone), cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("server with %s: client says %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestNoSessionIsResumed (T23) has one side that would resume, so that only the
// other's refusal is left; the check runs in every handshake.
func TestNoSessionIsResumed(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p, s := newLeaf(t, &ca, Portal, "p", nil), newLeaf(t, &ca, Server, "s", nil)
	client, server := credentials(t, p.with(), p.key, ca), credentials(t, s.with(), s.key, ca)
	var checks atomic.Int32
	count := func(Peer) error { checks.Add(1); return nil }

	for _, side := range []string{"client", "server", "neither"} {
		ours, theirs := client.ClientTLS(ProtocolControl, count), server.ServerTLS(ProtocolControl, count)
		cache := tls.NewLRUClientSessionCache(10)
		if side != "client" { // the client would resume
			ours.ClientSessionCache, ours.SessionTicketsDisabled = cache, false
		}
		if side != "server" { // the server would hand out tickets
			theirs.SessionTicketsDisabled = false
		}
		resumes := side == "neither"
		for i := range 3 {
			checks.Store(0)
			c, d, cerr, derr := shake(t, ours, theirs)
			if cerr != nil || derr != nil {
				t.Fatal(cerr, derr)
			}
			if resumed := c.ConnectionState().DidResume || d.ConnectionState().DidResume; resumed != (resumes && i > 0) {
				t.Errorf("%s refuses: handshake %d resumed: %v", side, i, resumed)
			}
			if got := checks.Load(); got != 2 {
				t.Errorf("%s refuses: handshake %d was checked %d times, want once by each side", side, i, got)
			}
		}
	}
}

func TestCheckOfTheCallerEndsTheHandshake(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p, s := newLeaf(t, &ca, Portal, "p", nil), newLeaf(t, &ca, Server, "s", nil)
	client, server := credentials(t, p.with(), p.key, ca), credentials(t, s.with(), s.key, ca)
	revoked := errors.New("revoked")
	_, _, cerr, derr := shake(t, client.ClientTLS(ProtocolControl, anyone), server.ServerTLS(ProtocolControl, func(Peer) error { return revoked }))
	if !errors.Is(derr, revoked) {
		t.Errorf("server says %v, want its check's error", derr)
	}
	// A stranger and a revoked peer get the same bare alert.
	if cerr == nil || !strings.HasSuffix(cerr.Error(), "tls: bad certificate") {
		t.Errorf("client says %v, want a bad certificate alert and nothing more", cerr)
	}
}

// TestCostlyCertificatesCostLittle (T22, B71, B30) bounds what a stranger can make us compute.
// The figure includes the stranger's own half of the handshake.
func TestCostlyCertificatesCostLittle(t *testing.T) {
	const limit = 50 * time.Millisecond
	ca := newCA(t, nil, "CA", nil)
	me := newLeaf(t, &ca, Portal, "me", nil)
	own := credentials(t, me.with(), me.key, ca)

	// Every intermediate has the same name and could have signed every other.
	var same []holder
	for range 100 {
		same = append(same, newCA(t, nil, "Same", nil))
	}
	many := newLeaf(t, &same[0], Portal, "p", nil)
	var flood []holder
	for range 900 {
		flood = append(flood, same[0])
	}
	huge := certificate(t, &ca, junkSigner{rsaPublic(16384)}, x509.Certificate{URIs: []*url.URL{own.ID.URL()}, ExtKeyUsage: bothUsages}, nil)
	large := certificate(t, &ca, junkSigner{rsaPublic(8192)}, x509.Certificate{URIs: []*url.URL{own.ID.URL()}, ExtKeyUsage: bothUsages}, nil)
	var hugeCAs []holder
	for range 3 {
		hugeCAs = append(hugeCAs, certificate(t, &ca, junkSigner{rsaPublic(8192)}, x509.Certificate{Subject: pkix.Name{CommonName: "Huge"}, IsCA: true}, nil))
	}
	var names []*url.URL
	for i := range 2000 {
		names = append(names, &url.URL{Scheme: "spiffe", Host: "example.org", Path: fmt.Sprintf("/portal/p%d", i)})
	}
	named := newLeaf(t, &ca, Portal, "p", func(c *x509.Certificate) { c.URIs = names })

	for _, tt := range []struct {
		name string
		leaf holder
		more []holder
		want string
	}{
		{"100 intermediates", many, same, "101 certificates"},
		{"a certificate message above 256 KB", many, flood, "exceeds maximum"},
		{"an RSA key of 16384 bits", huge, nil, "RSA key"},
		{"an RSA key of 8192 bits", large, nil, "RSA key of 8192 bits"},
		{"CAs with RSA keys of 8192 bits", newLeaf(t, &ca, Portal, "p", nil), hugeCAs, "RSA key of 8192 bits"},
		{"2,000 names", named, nil, "2000 names"},
	} {
		peer := presenting(own, tt.leaf.with(tt.more...), tt.leaf.key)
		for _, side := range []string{"client", "server"} {
			var err error
			spent := cpu(func() {
				if side == "client" {
					_, _, _, err = shake(t, peer.ClientTLS(ProtocolTunnel, anyone), own.ServerTLS(ProtocolTunnel, anyone))
				} else {
					_, _, err, _ = shake(t, own.ClientTLS(ProtocolTunnel, anyone), peer.ServerTLS(ProtocolTunnel, anyone))
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s, as %s: error %v, want one with %q", tt.name, side, err, tt.want)
			}
			if spent > limit {
				t.Errorf("%s, as %s: took %v of processor time, want at most %v", tt.name, side, spent, limit)
			}
		}
	}
}
