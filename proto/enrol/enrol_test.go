package enrol

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/proto/wire"
)

// server is a server as a script: each connection is answered by the next answer.
type server struct {
	*testing.T
	ca      *identitytest.Authority
	own     *identity.Credentials
	policy  ed25519.PrivateKey
	address string
	answers chan func(c *tls.Conn, m wire.Enrol)

	mu  sync.Mutex
	got []wire.Enrol
}

func newServer(t *testing.T) *server {
	ca := identitytest.New(t)
	s := &server{T: t, ca: ca, own: ca.Credentials(identity.Server, "s"), policy: key(1), answers: make(chan func(*tls.Conn, wire.Enrol), 16)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(raw) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s
}

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func (s *server) serve(raw net.Conn) {
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Server(raw, s.own.EnrolTLS(func(identity.Peer) error { return nil }))
	header := make([]byte, wire.ControlHeaderLen)
	if _, err := io.ReadFull(c, header); err != nil {
		return
	}
	kind, n, err := wire.ParseControlHeader(header)
	if err != nil {
		s.Error(err)
		return
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		s.Error(err)
		return
	}
	m, err := wire.ParseFromJoiner(kind, body)
	if err != nil {
		s.Error(err)
		return
	}
	s.mu.Lock()
	s.got = append(s.got, m.(wire.Enrol))
	s.mu.Unlock()
	(<-s.answers)(c, m.(wire.Enrol))
}

// asked returns all that was asked so far.
func (s *server) asked() []wire.Enrol {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func (s *server) token() invite.Token {
	s.Helper()
	t, err := invite.New(identity.Portal, "ann", identity.FingerprintOf(s.own.Root()), s.policy.Public().(ed25519.PublicKey), []string{s.address})
	if err != nil {
		s.Fatal(err)
	}
	return t
}

func (s *server) authorities() wire.Authorities {
	return wire.Authorities{Version: 1, Certificates: [][]byte{s.ca.Certificate.Raw}}.Sign(s.policy)
}

// enrolled is the right answer.
func (s *server) enrolled(m wire.Enrol) wire.Enrolled {
	asked, err := identity.ParseRequest(m.CSR)
	if err != nil {
		s.Error(err)
		return wire.Enrolled{}
	}
	return wire.Enrolled{
		Time: uint64(time.Now().Unix()), Chain: [][]byte{s.ca.Issue(asked.ID, asked.Public).Raw},
		Policy: []ed25519.PublicKey{s.policy.Public().(ed25519.PublicKey)}, Servers: []string{s.address},
	}
}

func say(c *tls.Conn, list ...wire.Message) {
	for _, m := range list {
		c.Write(wire.AppendMessage(nil, m))
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestJoiningBelievesNothingThatDoesNotFit(t *testing.T) {
	s := newServer(t)
	other := identitytest.New(t)
	altered := func(change func(*wire.Authorities, *wire.Enrolled, wire.Enrol)) func(*tls.Conn, wire.Enrol) {
		return func(c *tls.Conn, m wire.Enrol) {
			a, e := s.authorities(), s.enrolled(m)
			change(&a, &e, m)
			say(c, a, e)
		}
	}
	issue := func(by *identitytest.Authority, role identity.Role, name string, m wire.Enrol) [][]byte {
		asked, _ := identity.ParseRequest(m.CSR)
		return [][]byte{by.Issue(identity.ID{Domain: identitytest.Domain, Role: role, Name: name}, asked.Public).Raw}
	}
	for _, tt := range []struct {
		name   string
		answer func(*tls.Conn, wire.Enrol)
		want   string
	}{
		{"right", altered(func(*wire.Authorities, *wire.Enrolled, wire.Enrol) {}), ""},
		{"after waiting, and a message of a newer version", func(c *tls.Conn, m wire.Enrol) {
			say(c, wire.EnrolWait{Key: identity.KeyHash{1}})
			c.Write([]byte{0x77, 0x77, 0, 0, 0, 1, 0})
			say(c, wire.EnrolWait{Key: identity.KeyHash{1}}, s.authorities(), s.enrolled(m))
		}, ""},
		{"no authorities", func(c *tls.Conn, m wire.Enrol) { say(c, s.enrolled(m)) }, "not signed by the policy key"},
		{"authorities of another policy key", altered(func(a *wire.Authorities, _ *wire.Enrolled, _ wire.Enrol) { *a = a.Sign(key(2)) }), "not signed by the policy key"},
		{"another policy key, and all that it signs", altered(func(a *wire.Authorities, e *wire.Enrolled, _ wire.Enrol) {
			*a, e.Policy = a.Sign(key(2)), []ed25519.PublicKey{key(2).Public().(ed25519.PublicKey)}
		}), "the server's policy key is not"},
		{"a policy key more, which signs", altered(func(a *wire.Authorities, e *wire.Enrolled, _ wire.Enrol) {
			*a, e.Policy = a.Sign(key(2)), append(e.Policy, key(2).Public().(ed25519.PublicKey))
		}), "not signed by the policy key"},
		{"authorities that are none", altered(func(a *wire.Authorities, _ *wire.Enrolled, _ wire.Enrol) {
			a.Certificates = [][]byte{{1}}
			*a = a.Sign(s.policy)
		}), "list of authorities"},
		{"a certificate of another authority", altered(func(_ *wire.Authorities, e *wire.Enrolled, m wire.Enrol) {
			e.Chain = issue(other, identity.Portal, "ann", m)
		}), "unknown authority"},
		{"a certificate of another name", altered(func(_ *wire.Authorities, e *wire.Enrolled, m wire.Enrol) {
			e.Chain = issue(s.ca, identity.Portal, "bo", m)
		}), "portal/bo, not of"},
		{"a certificate of another role", altered(func(_ *wire.Authorities, e *wire.Enrolled, m wire.Enrol) {
			e.Chain = issue(s.ca, identity.Relay, "ann", m)
		}), "relay/ann, not of"},
		{"a certificate of another key", altered(func(_ *wire.Authorities, e *wire.Enrolled, _ wire.Enrol) {
			cert, _ := s.ca.Leaf(identity.Portal, "ann")
			e.Chain = [][]byte{cert.Raw}
		}), "is for the key"},
		{"junk for a certificate", altered(func(_ *wire.Authorities, e *wire.Enrolled, _ wire.Enrol) { e.Chain = [][]byte{{1}} }), "the certificate that the server gave"},
		{"servers that are none", altered(func(_ *wire.Authorities, e *wire.Enrolled, _ wire.Enrol) { e.Servers = []string{"a b"} }), "list of servers"},
		{"a refusal", func(c *tls.Conn, _ wire.Enrol) {
			say(c, wire.EnrolRefused{Reason: wire.ReasonToken, Text: "no\x1b[2J"})
		}, `no valid join token: "no\x1b[2J"`},
		{"no answer", func(*tls.Conn, wire.Enrol) {}, "without an answer"},
		{"a message of another protocol", func(c *tls.Conn, _ wire.Enrol) { say(c, wire.Ping{}) }, "wrong direction"},
		{"a message without end", func(c *tls.Conn, _ wire.Enrol) { c.Write([]byte{0, 98, 0xff, 0xff, 0xff, 0xff}) }, "malformed"},
	} {
		s.answers <- tt.answer
		k, waited := newKey(t), 0
		c := Client{Software: "test", Now: time.Now, Waiting: func(identity.KeyHash) { waited++ }}
		r, err := c.Join(t.Context(), s.token(), k)
		switch {
		case tt.want == "" && (err != nil || r.ID.Name != "ann" || len(r.Roots) != 1 || r.Told.IsZero() || r.Servers[0] != s.address):
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if want := strings.Contains(tt.name, "waiting"); (waited == 1) != want {
			t.Errorf("%s: it said %d times that it waits", tt.name, waited)
		}
	}
}

// TestWaitingGoesOnThroughLostConnections, but no attempt is repeated that nobody
// has to decide about.
func TestWaitingGoesOnThroughLostConnections(t *testing.T) {
	s := newServer(t)
	s.answers <- func(c *tls.Conn, _ wire.Enrol) { say(c, wire.EnrolWait{}) }
	s.answers <- func(c *tls.Conn, _ wire.Enrol) { say(c, wire.EnrolRefused{Reason: wire.ReasonBusy}) }
	s.answers <- func(c *tls.Conn, m wire.Enrol) { say(c, wire.EnrolWait{}, s.authorities(), s.enrolled(m)) }
	c := Client{Now: time.Now, pause: 10 * time.Millisecond}
	if _, err := c.Join(t.Context(), s.token(), newKey(t)); err != nil {
		t.Error(err)
	}
	if got := s.asked(); len(got) != 3 || got[0].Token != got[2].Token {
		t.Errorf("it asked %d times", len(got))
	}
	s.answers <- func(*tls.Conn, wire.Enrol) {}
	if _, err := c.Join(t.Context(), s.token(), newKey(t)); err == nil || len(s.asked()) != 4 {
		t.Errorf("it asked %d times: %v", len(s.asked()), err)
	}
}

func TestLateRenewalCountsOnThePinnedKeys(t *testing.T) {
	s := newServer(t)
	cert, k := s.ca.Leaf(identity.Portal, "ann")
	own, err := identity.NewCredentials([]*x509.Certificate{cert}, k, []*x509.Certificate{s.ca.Certificate}, nil)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewRequest(own.ID, k)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(c *tls.Conn, m wire.Enrol) {
		if m.Token != (wire.TokenID{}) {
			s.Error("a token was sent that nobody has")
		}
		say(c, s.authorities(), s.enrolled(m))
	}
	pinned := s.policy.Public().(ed25519.PublicKey)
	c := Client{Now: time.Now}
	for _, tt := range []struct {
		policy ed25519.PublicKey
		ok     bool
	}{{pinned, true}, {key(2).Public().(ed25519.PublicKey), false}} {
		s.answers <- answer
		_, err := c.Renew(t.Context(), own, []string{"127.0.0.1:1", s.address}, []ed25519.PublicKey{tt.policy}, csr)
		if (err == nil) != tt.ok || !tt.ok && !strings.Contains(err.Error(), "not signed by the policy key") {
			t.Errorf("with the right key pinned: %t: %v", tt.ok, err)
		}
	}
	s.answers <- func(c *tls.Conn, _ wire.Enrol) { say(c, wire.EnrolRefused{Reason: wire.ReasonRevoked}) }
	var refused *Refused
	if _, err := c.Renew(t.Context(), own, []string{s.address}, []ed25519.PublicKey{pinned}, csr); !errors.As(err, &refused) || refused.Reason != wire.ReasonRevoked {
		t.Errorf("refused: %v", err)
	}
}
