package daemon

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/hub"
)

// invite has the server make a token, as the command does.
func (r *rig) invite(q admin.InviteRequest) invite.Token {
	r.t.Helper()
	if q.Role == "" {
		q.Role = roleOf(q.Name)
	}
	if q.Life == 0 {
		q.Life = time.Hour
	}
	if q.Role == identity.Relay {
		q.Addresses = []string{"192.0.2.7", "2001:db8::7"}
	}
	var list []admin.Invited
	if err := local.Call(r.t.Context(), r.cfg.Socket, admin.CommandInvite, q, &list); err != nil {
		r.t.Fatal(err)
	}
	token, err := invite.Parse([]byte(list[0].Token))
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

// joiner is who joins: a key, and what it says.
type joiner struct {
	r     *rig
	token invite.Token
	key   crypto.Signer
	ask   wire.Enrol
}

func (r *rig) joiner(token invite.Token) *joiner {
	r.t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	j := &joiner{r: r, token: token, key: key}
	j.ask = wire.Enrol{Version: wire.ControlVersion, Software: "test 1", Token: token.ID, Secret: token.Secret, CSR: r.csr(token.Role, token.Name, key)}
	return j
}

func (r *rig) csr(role identity.Role, name string, key crypto.Signer) []byte {
	r.t.Helper()
	csr, err := identity.NewRequest(identity.ID{Domain: r.cfg.Domain, Role: role, Name: name}, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return csr
}

// dial shakes hands as who knows nothing but the token.
func (j *joiner) dial() (*tls.Conn, error) {
	raw, err := net.Dial("tcp", j.r.cfg.Address)
	if err != nil {
		return nil, err
	}
	cfg, _ := identity.JoinTLS(j.token.Authority, time.Now)
	c := tls.Client(raw, cfg)
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// answers reads all that the server says to the end.
func answers(b []byte) (list []wire.ToJoiner, err error) {
	for len(b) > 0 {
		kind, n, err := wire.ParseControlHeader(b)
		if err != nil || len(b) < wire.ControlHeaderLen+n {
			return list, errors.New("cut short")
		}
		m, err := wire.ParseToJoiner(kind, b[wire.ControlHeaderLen:wire.ControlHeaderLen+n])
		if err != nil {
			return list, err
		}
		list, b = append(list, m), b[wire.ControlHeaderLen+n:]
	}
	return list, nil
}

// exchange asks and returns the raw answer.
func (j *joiner) exchange() ([]byte, error) {
	c, err := j.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(wire.AppendMessage(nil, j.ask)); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

// join asks, and makes credentials of the answer as a portal does.
func (j *joiner) join() (*identity.Credentials, error) {
	b, err := j.exchange()
	if err != nil {
		return nil, err
	}
	return j.take(b)
}

func (j *joiner) take(b []byte) (*identity.Credentials, error) {
	list, err := answers(b)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(m wire.ToJoiner) bool { _, ok := m.(wire.EnrolWait); return ok })
	if len(list) == 1 {
		if m, ok := list[0].(wire.EnrolRefused); ok {
			return nil, &enrol.Refusal{Reason: m.Reason, Text: m.Text}
		}
	}
	if len(list) != 2 {
		return nil, errors.New("not two answers")
	}
	authorities, enrolled := list[0].(wire.Authorities), list[1].(wire.Enrolled)
	if !authorities.SignedBy(enrolled.Policy...) {
		return nil, errors.New("the authorities are not signed by the policy key")
	}
	parse := func(raw [][]byte) (certs []*x509.Certificate) {
		for _, der := range raw {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				j.r.t.Error(err)
			}
			certs = append(certs, cert)
		}
		return certs
	}
	return identity.NewCredentials(parse(enrolled.Chain), j.key, parse(authorities.Certificates), nil)
}

func (j *joiner) mustJoin() *identity.Credentials {
	j.r.t.Helper()
	c, err := j.join()
	if err != nil {
		j.r.t.Fatalf("join %s: %v", j.token.Name, err)
	}
	return c
}

func TestInvitedPortalAndRelayJoinAndConnect(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"ann", "relay-1"} {
		token := r.invite(admin.InviteRequest{Name: name})
		j := r.joiner(token)
		b, err := j.exchange()
		if err != nil {
			t.Fatal(err)
		}
		list, err := answers(b)
		if err != nil || len(list) != 2 {
			t.Fatalf("%s: answers %v, %v", name, list, err)
		}
		enrolled := list[1].(wire.Enrolled)
		policy, err := admin.LoadSigner(r.cfg.PolicyKey)
		if err != nil {
			t.Fatal(err)
		}
		if len(enrolled.Policy) != 1 || !enrolled.Policy[0].Equal(policy.Public().(ed25519.PublicKey)) || !slices.Equal(enrolled.Servers, r.cfg.Servers) {
			t.Errorf("%s: told of the policy keys %x and the servers %q", name, enrolled.Policy, enrolled.Servers)
		}
		if roleOf(name) == identity.Relay && len(enrolled.Addresses) != 2 || roleOf(name) == identity.Portal && len(enrolled.Addresses) != 0 {
			t.Errorf("%s: told of the addresses %v", name, enrolled.Addresses)
		}
		if r.credentials[name], err = j.take(b); err != nil {
			t.Fatal(err)
		}
	}
	r.apply("web: ann tcp://127.0.0.1:80 -> ann-2 tcp://10.0.0.5:80")
	next[wire.GrantsComplete](r.portal("ann"))
	r.relay("relay-1")
	enrolments := r.records("of enrolments", func(a audit.Record) bool { return a.Event == "enrol" && a.Answer == audit.Done })
	if len(enrolments) != 2 || enrolments[0].From != "127.0.0.1" {
		t.Errorf("audited: %+v", enrolments)
	}
}

// T25, with real connections: 200 devices come with one token at once.
func TestOneOf200Joins(t *testing.T) {
	r := newRig(t)
	token := r.invite(admin.InviteRequest{Name: "ann"})
	var won, lost atomic.Int32
	var winner atomic.Pointer[joiner]
	var all sync.WaitGroup
	for range 200 {
		j := r.joiner(token)
		all.Go(func() {
			switch _, err := j.join(); {
			case err == nil:
				won.Add(1)
				winner.Store(j)
			case isRefused(err, wire.ReasonToken):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 199 {
		t.Fatalf("%d joined and %d were refused, want 1 and 199", won.Load(), lost.Load())
	}
	// An answer that was lost costs nothing: the same key asks again, also after a restart.
	r.shutdown()
	r.start()
	r.credentials["ann"] = winner.Load().mustJoin()
	next[wire.GrantsComplete](r.portal("ann"))
}

// A device that was switched off while it joined, and asks again, has what it asked first still under way at the server.
func TestOneKeyAsksSeveralTimesAtOnce(t *testing.T) {
	r := newRig(t)
	for round := range 20 {
		for _, name := range []string{fmt.Sprint("ann-", round), fmt.Sprint("relay-", round)} {
			j := r.joiner(r.invite(admin.InviteRequest{Name: name}))
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if _, err := j.join(); err != nil {
						t.Errorf("join %s: %v", name, err)
					}
				})
			}
			all.Wait()
		}
	}
}

func isRefused(err error, reason wire.Reason) bool {
	var refused *enrol.Refusal
	return errors.As(err, &refused) && refused.Reason == reason
}

// T7: whatever is wrong with a token, the answer is the same to the byte.
func TestEveryWrongTokenGetsTheSameBytes(t *testing.T) {
	r := newRig(t, "bo")
	used := r.invite(admin.InviteRequest{Name: "ann"})
	r.joiner(used).mustJoin()
	open := r.invite(admin.InviteRequest{Name: "cy"})
	again := r.invite(admin.InviteRequest{Name: "dan"}) // enrolled by hand meanwhile
	r.issue("dan", false)
	with := func(token invite.Token, change func(*joiner)) *joiner {
		j := r.joiner(token)
		change(j)
		return j
	}
	var first []byte
	for what, j := range map[string]*joiner{
		"used":                        r.joiner(used),
		"wrong secret":                with(open, func(j *joiner) { j.ask.Secret[0] ^= 1 }),
		"unknown":                     with(open, func(j *joiner) { j.ask.Token[0] ^= 1 }),
		"name of nobody":              with(open, func(j *joiner) { j.ask.CSR = r.csr(identity.Portal, "nobody", j.key) }),
		"name of an enrolled portal":  with(open, func(j *joiner) { j.ask.CSR = r.csr(identity.Portal, "bo", j.key) }),
		"another role":                with(open, func(j *joiner) { j.ask.CSR = r.csr(identity.Relay, "cy", j.key) }),
		"the server's own role":       with(open, func(j *joiner) { j.ask.CSR = r.csr(identity.Server, "server", j.key) }),
		"a name that was taken since": r.joiner(again),
	} {
		b, err := j.exchange()
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("%s: answered\n%x, others\n%x", what, b, first)
		}
	}
	if list, err := answers(first); err != nil || len(list) != 1 || list[0].(wire.EnrolRefused).Reason != wire.ReasonToken {
		t.Errorf("the answer is %v, %v", list, err)
	}
	r.joiner(open).mustJoin()
}

// What is no request is not answered at all, and nobody is kept waiting by it.
func TestBrokenEnrolments(t *testing.T) {
	r := newRig(t, "witness")
	token := r.invite(admin.InviteRequest{Name: "ann"})
	good := wire.AppendMessage(nil, r.joiner(token).ask)
	for what, b := range map[string][]byte{
		"nothing":                {},
		"half a header":          good[:3],
		"half a message":         good[:len(good)/2],
		"a length of 0xffffffff": message(wire.TypeEnrol, 0xffffffff),
		"Hello":                  hello,
		"a server's message":     wire.AppendMessage(nil, wire.EnrolWait{}),
		"bytes left over":        whole(wire.TypeEnrol, append(slices.Clone(good[wire.ControlHeaderLen:]), 7)...),
		"no request in it":       wire.AppendMessage(nil, wire.Enrol{Version: wire.ControlVersion, Token: token.ID, Secret: token.Secret}),
	} {
		c, err := r.joiner(token).dial()
		if err != nil {
			t.Fatal(err)
		}
		c.Write(b)
		c.CloseWrite()
		if got := wantClosed(t, c); len(got) > 0 {
			t.Errorf("%s: answered with %x", what, got)
		}
		c.Close()
	}
	j := r.joiner(token)
	j.ask.CSR = []byte("no request")
	if _, err := j.join(); !isRefused(err, wire.ReasonProtocol) {
		t.Errorf("something else in place of a request: %v", err)
	}
	for _, older := range []uint16{1, wire.ControlVersion - 1} {
		j = r.joiner(token)
		j.ask.Version = older
		want := fmt.Sprintf("the server speaks version %d of the control protocol, this program version %d: upgrade this program", wire.ControlVersion, older)
		if _, err := j.join(); !isRefused(err, wire.ReasonVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: %v, want %q", older, err, want)
		}
	}
	r.wantServing()
	r.joiner(token).mustJoin()
}

func TestJoinWaitsForTheOperator(t *testing.T) {
	r := newRig(t)
	token := r.invite(admin.InviteRequest{Name: "ann", Approve: true})
	thief, owner := r.joiner(token), r.joiner(token)
	type outcome struct {
		credentials *identity.Credentials
		err         error
	}
	results := make(map[*joiner]chan outcome)
	for _, j := range []*joiner{thief, owner} {
		done := make(chan outcome, 1)
		results[j] = done
		go func() {
			c, err := j.join()
			done <- outcome{c, err}
		}()
	}
	var list []enrol.Token
	r.until("both wait", func() bool {
		r.ask(admin.CommandEnrolments, &list)
		return len(list) == 1 && len(list[0].Waiting) == 2
	})
	request, err := identity.ParseRequest(owner.ask.CSR)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := request.Key.MarshalText()
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandApprove, admin.DecideRequest{Key: string(text[:16])}, &enrol.Token{}); err != nil {
		t.Fatal(err)
	}
	got := <-results[owner]
	if got.err != nil {
		t.Fatalf("the approved: %v", got.err)
	}
	if other := <-results[thief]; !isRefused(other.err, wire.ReasonToken) {
		t.Errorf("the other: %v", other.err)
	}
	r.credentials["ann"] = got.credentials
	next[wire.GrantsComplete](r.portal("ann"))

	rejected := r.joiner(r.invite(admin.InviteRequest{Name: "bo", Approve: true}))
	done := make(chan error, 1)
	go func() { _, err := rejected.join(); done <- err }()
	r.until("it waits", func() bool {
		r.ask(admin.CommandEnrolments, &list)
		return slices.ContainsFunc(list, func(t enrol.Token) bool { return t.Name == "bo" && len(t.Waiting) == 1 })
	})
	i := slices.IndexFunc(list, func(t enrol.Token) bool { return t.Name == "bo" })
	text, _ = list[i].Waiting[0].Key.MarshalText()
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandReject, admin.DecideRequest{Key: string(text)}, &enrol.Token{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !isRefused(err, wire.ReasonRejected) {
		t.Errorf("the rejected: %v", err)
	}
}

// A device that slept until its certificate had ended renews it by itself, for a time.
func TestCertificateThatHasEndedIsRenewed(t *testing.T) {
	r := newRig(t, "ann", "bo")
	r.shutdown()
	r.cfg.RenewAfterExpiry = 30 * time.Minute // the CA is an hour old
	r.start()
	own, err := ca.Load("example.org", r.cfg.CA, r.cfg.CAKey, "", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	// late is ann's or bo's own key with a certificate that ended so long ago.
	late := func(name string, ago time.Duration) (*tls.Config, wire.Enrol) {
		cert := leaf(t, own, func(c *x509.Certificate) {
			c.URIs = uris("spiffe://example.org/portal/" + name)
			c.NotBefore, c.NotAfter = time.Now().Add(-ago-time.Hour), time.Now().Add(-ago)
		})
		return r.lateConfig(cert), wire.Enrol{Version: wire.ControlVersion, CSR: r.csr(identity.Portal, name, cert.PrivateKey.(crypto.Signer))}
	}
	cfg, ask := late("ann", time.Minute)
	if _, err := r.askLate(cfg, ask); !isRefused(err, wire.ReasonRevoked) {
		t.Errorf("a key that is not enrolled: %v", err)
	}
	for what, c := range map[string]struct {
		ago  time.Duration
		want wire.Reason
	}{"a minute": {time.Minute, 0}, "29 minutes": {29 * time.Minute, 0}, "31 minutes": {31 * time.Minute, wire.ReasonNotGranted}} {
		_, ask := late("ann", c.ago)
		cert := resignedUntil(t, own, r.credentials["ann"], "ann", time.Now().Add(-c.ago))
		ask.CSR = r.csr(identity.Portal, "ann", cert.PrivateKey.(crypto.Signer))
		_, err := r.askLate(r.lateConfig(cert), ask)
		if c.want == 0 && err != nil || c.want != 0 && !isRefused(err, c.want) {
			t.Errorf("it ended %s ago: %v", what, err)
		}
	}
	// Neither another's name nor a revoked key.
	cert := resignedUntil(t, own, r.credentials["ann"], "ann", time.Now().Add(-time.Minute))
	ask.CSR = r.csr(identity.Portal, "bo", cert.PrivateKey.(crypto.Signer))
	if _, err := r.askLate(r.lateConfig(cert), ask); err == nil {
		t.Error("ann renewed bo's certificate")
	}
	r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "ann"})
	ask.CSR = r.csr(identity.Portal, "ann", cert.PrivateKey.(crypto.Signer))
	if _, err := r.askLate(r.lateConfig(cert), ask); err == nil || strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked key: %v, want a bare alert", err)
	}
	// Without a token and without a certificate there is nothing to be had.
	if _, err := r.askLate(r.lateConfig(tls.Certificate{}), ask); !isRefused(err, wire.ReasonToken) {
		t.Errorf("neither token nor certificate: %v", err)
	}
}

// lateConfig presents a certificate that has ended to the enrolment protocol.
func (r *rig) lateConfig(cert tls.Certificate) *tls.Config {
	cas, err := identity.LoadCertificates(r.cfg.CA)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg, _ := identity.JoinTLS(identity.FingerprintOf(cas[0]), time.Now)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return cfg
}

func (r *rig) askLate(cfg *tls.Config, ask wire.Enrol) ([]wire.ToJoiner, error) {
	r.t.Helper()
	c := tls.Client(r.raw(), cfg)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(wire.AppendMessage(nil, ask)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return nil, err
	}
	list, err := answers(b)
	if err == nil && len(list) == 1 {
		if m, ok := list[0].(wire.EnrolRefused); ok {
			return nil, &enrol.Refusal{Reason: m.Reason, Text: m.Text}
		}
	}
	return list, err
}

// resignedUntil is a certificate of our CA for a portal's own key that ends at a time.
func resignedUntil(t *testing.T, a *ca.Authority, of *identity.Credentials, name string, end time.Time) tls.Certificate {
	t.Helper()
	key := of.Certificate().PrivateKey.(crypto.Signer)
	return leafOf(t, a, key, func(c *x509.Certificate) {
		c.URIs = uris("spiffe://example.org/portal/" + name)
		c.NotBefore, c.NotAfter = end.Add(-time.Hour), end
	})
}

// revoke revokes as the command does.
func (r *rig) revoke(q admin.RevokeRequest) admin.RevokedResult {
	r.t.Helper()
	var result admin.RevokedResult
	if err := local.Call(r.t.Context(), r.cfg.Socket, admin.CommandRevoke, q, &result); err != nil {
		r.t.Fatal(err)
	}
	return result
}

func TestBulkInvitation(t *testing.T) {
	r := newRig(t)
	var list []admin.Invited
	q := admin.InviteRequest{Role: identity.Portal, Name: "till-%03d", Count: 200, First: 1, Life: 7 * 24 * time.Hour}
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandInvite, q, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 200 || list[0].Name != "till-001" || list[199].Name != "till-200" {
		t.Fatalf("%d invited, the first %q", len(list), list[0].Name)
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, in := range list {
		token, err := invite.Parse([]byte(in.Token))
		if err != nil {
			t.Fatal(err)
		}
		j := r.joiner(token)
		all.Go(func() {
			if _, err := j.join(); err != nil {
				t.Errorf("%s: %v", in.Name, err)
			}
		})
	}
	all.Wait()
	t.Logf("200 portals joined at once within %v", time.Since(begin).Round(time.Millisecond))
	var portals []hub.PortalView
	r.ask(CommandPortals, &portals)
	if len(portals) != 200 {
		t.Errorf("%d portals are enrolled", len(portals))
	}
	for _, name := range []string{"till", "%d%d", "till-%s", "till-%", "till-%0004d", "Till-%d", "%n"} {
		q := admin.InviteRequest{Role: identity.Portal, Name: name, Count: 2, Life: time.Hour}
		if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandInvite, q, &list); err == nil {
			t.Errorf("%q was taken for a pattern", name)
		}
	}
	q.First = 200 // of whom the first is enrolled: none is made
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandInvite, q, &list); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("a name that is taken: %v", err)
	}
}
