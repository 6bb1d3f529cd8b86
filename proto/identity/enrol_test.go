package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestJoiningIsWithTheAuthorityOfTheToken has all that may stand where the server
// should, and all that may come to a server to enrol.
func TestJoiningIsWithTheAuthorityOfTheToken(t *testing.T) {
	ca := newCA(t, nil, "CA", longLived)
	middle := newCA(t, &ca, "Middle", nil)
	twin := newCA(t, nil, "CA", nil) // of the same name
	s := newLeaf(t, &middle, Server, "s", nil)
	server := credentials(t, s.with(middle), s.key, ca)
	if root := server.Root(); root == nil || !root.Equal(ca.cert) {
		t.Fatal("the server does not know its root")
	}
	enrolling := func(role Role, by, root holder, change func(*x509.Certificate), more ...holder) *tls.Config {
		h := newLeaf(t, &by, role, "s", change)
		c := presenting(server, append(h.with(more...), root.cert), h.key)
		cfg := c.ServerTLS(ProtocolEnrol, anyone)
		cfg.ClientAuth, cfg.VerifyConnection = tls.NoClientCert, nil
		return cfg
	}
	early := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = testNow.Add(24*time.Hour), testNow.Add(48*time.Hour)
	}
	late := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = testNow.Add(-48*time.Hour), testNow.Add(-24*time.Hour)
	}
	for _, tt := range []struct {
		name   string
		server *tls.Config
		want   string
		told   time.Time
	}{
		{"the server", server.EnrolTLS(anyone), "", testNow},
		{"another authority", enrolling(Server, twin, twin, nil), "not under the authority", testNow},
		{"another authority that shows ours", enrolling(Server, twin, ca, nil), "unknown authority", testNow},
		{"a portal", enrolling(Portal, ca, ca, nil), "expected a server", testNow},
		{"a relay", enrolling(Relay, ca, ca, nil), "expected a server", testNow},
		{"a server that shows no root", enrolling(Server, ca, middle, nil), "not under the authority", testNow},
		{"a server that has expired", enrolling(Server, ca, ca, late), "set the clock", testNow},
		{"a server of tomorrow", enrolling(Server, ca, ca, early), "", testNow.Add(30 * time.Hour)},
		{"a server of tomorrow, that says it is today", enrolling(Server, ca, ca, early), "told", testNow},
		{"a control connection", server.ServerTLS(ProtocolControl, anyone), "application protocol", testNow},
	} {
		cfg, joining := JoinTLS(FingerprintOf(ca.cert), testClock)
		_, _, err, _ := shake(t, cfg, tt.server)
		if err == nil {
			var believe bool
			if believe, err = joining.Confirm(tt.told); err != nil {
				err = &clockError{err}
			} else if !believe {
				t.Errorf("%s: its time is not believed", tt.name)
			}
		}
		switch {
		case tt.want == "" && (err != nil || joining.Domain != "example.org" || !joining.Root.Equal(ca.cert)):
			t.Errorf("%s: %v, of domain %q", tt.name, err, joining.Domain)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

type clockError struct{ err error }

func (e *clockError) Error() string { return "told: " + e.err.Error() }

func TestServerEnrolsStrangersAndWhoseTimeIsOver(t *testing.T) {
	ca, other := newCA(t, nil, "CA", longLived), newCA(t, nil, "Other", nil)
	s := newLeaf(t, &ca, Server, "s", nil)
	server := credentials(t, s.with(), s.key, ca)
	ends := func(at time.Time) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = at.Add(-time.Hour), at }
	}
	revoked := newLeaf(t, &ca, Portal, "r", ends(testNow.Add(-time.Hour)))
	server.Revocations().Add(Revocation{Epoch: 1, Key: HashKey(revoked.cert)})
	for _, tt := range []struct {
		name string
		h    *holder
		want string
	}{
		{"nothing", nil, ""},
		{"a certificate", ptr(newLeaf(t, &ca, Portal, "p", nil)), ""},
		{"one that ended an hour ago", ptr(newLeaf(t, &ca, Portal, "p", ends(testNow.Add(-time.Hour)))), ""},
		{"one that ended a year ago", ptr(newLeaf(t, &ca, Portal, "p", ends(testNow.AddDate(-1, 0, 0)))), ""}, // the caller judges
		{"one of tomorrow", ptr(newLeaf(t, &ca, Portal, "p", ends(testNow.Add(24*time.Hour)))), "clock"},
		{"one that was revoked", &revoked, "revoked"},
		{"one of another authority", ptr(newLeaf(t, &other, Portal, "p", nil)), "unknown authority"},
	} {
		cfg, _ := JoinTLS(FingerprintOf(ca.cert), testClock)
		if tt.h != nil {
			cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{tt.h.cert.Raw}, PrivateKey: tt.h.key}}
		}
		var checked []Peer
		_, _, _, err := shake(t, cfg, server.EnrolTLS(func(p Peer) error { checked = append(checked, p); return nil }))
		switch {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		case tt.want == "" && tt.h == nil && len(checked) != 0, tt.want == "" && tt.h != nil && (len(checked) != 1 || !checked[0].NotAfter.Equal(tt.h.cert.NotAfter)):
			t.Errorf("%s: checked %v", tt.name, checked)
		}
	}
}

func longLived(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = testNow.AddDate(-10, 0, 0), testNow.AddDate(10, 0, 0)
}

func ptr[T any](v T) *T { return &v }

func TestRequestsAreForOneIdentityAndAGoodKey(t *testing.T) {
	ann, err := New("example.org", Portal, "ann")
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	good, err := NewRequest(ann, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(good)
	if err != nil || r.ID != ann || r.Key != HashPublic(key.Public()) || !r.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		t.Errorf("read %+v, %v", r, err)
	}
	request := func(key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
		template := &x509.CertificateRequest{URIs: []*url.URL{ann.URL()}}
		change(template)
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	none := func(*x509.CertificateRequest) {}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	altered := append([]byte(nil), good...)
	altered[len(altered)-5] ^= 1
	for _, tt := range []struct {
		name string
		der  []byte
		want string
	}{
		{"with a subject that says otherwise", request(key, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{CommonName: "server"} }), ""},
		{"without a name", request(key, func(c *x509.CertificateRequest) { c.URIs = nil }), "no identity"},
		{"with two names", request(key, func(c *x509.CertificateRequest) { c.URIs = append(c.URIs, ann.URL()) }), "2 names"},
		{"with a DNS name", request(key, func(c *x509.CertificateRequest) { c.URIs, c.DNSNames = nil, []string{"ann"} }), "no URI"},
		{"of no role", request(key, func(c *x509.CertificateRequest) { c.URIs[0].Path = "/boss/ann" }), "unknown role"},
		{"with a weak key", request(small, none), "1024 bits"},
		{"with an altered signature", altered, "certificate request"},
		{"cut", good[:len(good)-1], "read a certificate request"},
		{"with more behind it", append(append([]byte(nil), good...), 0), "read a certificate request"},
		{"of nothing", nil, "read a certificate request"},
		{"that is long", make([]byte, MaxRequest+1), "at most 4096"},
	} {
		_, err := ParseRequest(tt.der)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestIssuedCertificatesAreOfUse(t *testing.T) {
	ca, other := newCA(t, nil, "CA", nil), newCA(t, nil, "Other", nil)
	p := newLeaf(t, &ca, Portal, "p", nil)
	id, key, roots := ID{"example.org", Portal, "p"}, HashKey(p.cert), []*x509.Certificate{ca.cert}
	if err := CheckIssued(p.with(), roots, id, key, testNow); err != nil {
		t.Error(err)
	}
	only := func(u x509.ExtKeyUsage) []*x509.Certificate {
		return certificate(t, &ca, p.key, x509.Certificate{URIs: p.cert.URIs, ExtKeyUsage: []x509.ExtKeyUsage{u}}, nil).with()
	}
	for name, tt := range map[string]struct {
		chain []*x509.Certificate
		id    ID
		at    time.Time
		want  string
	}{
		"another authority": {newLeaf(t, &other, Portal, "p", nil).with(), id, testNow, "unknown authority"},
		"another's":         {p.with(), ID{"example.org", Portal, "q"}, testNow, "is of spiffe://example.org/portal/p"},
		"another key":       {newLeaf(t, &ca, Portal, "p", nil).with(), id, testNow, "is for the key"},
		"over":              {p.with(), id, testNow.AddDate(1, 0, 0), "clock"},
		"for clients alone": {only(x509.ExtKeyUsageClientAuth), id, testNow, "key usage"},
		"for servers alone": {only(x509.ExtKeyUsageServerAuth), id, testNow, "key usage"},
		"nothing":           {nil, id, testNow, "0 certificates"},
		"five certificates": {p.with(p, p, p, p), id, testNow, "5 certificates"},
	} {
		wantError(t, name, CheckIssued(tt.chain, roots, tt.id, key, tt.at), tt.want)
	}
}
