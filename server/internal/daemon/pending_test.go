package daemon

import (
	"crypto"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/strict"
)

// operator is who has the CA key of a rig, on another machine.
type operator struct {
	*rig
	dir   string
	known strict.Known
}

// takeCAKey takes the CA key off the server, which is started anew without it.
func (r *rig) takeCAKey(options ...func(*config.Config)) *operator {
	r.t.Helper()
	r.shutdown()
	for _, option := range options {
		option(r.cfg)
	}
	o := &operator{rig: r, dir: r.t.TempDir()}
	for _, file := range []string{r.cfg.CA, r.cfg.CAKey} {
		b, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.dir, filepath.Base(file)), b, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := os.Remove(r.cfg.CAKey); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.CAKey = ""
	r.start()
	return o
}

// requests are those that wait.
func (o *operator) requests() strict.CertificateRequests {
	o.t.Helper()
	var q strict.CertificateRequests
	o.ask(admin.CommandCAPending, &q)
	return q
}

// waits waits until a certificate for the name does.
func (o *operator) waits(name string) strict.CertificateRequest {
	o.t.Helper()
	var found strict.CertificateRequest
	o.until("a certificate for "+name+" waits", func() bool {
		for _, q := range o.requests().Requests {
			if q.Name == name {
				found = q
				return true
			}
		}
		return false
	})
	return found
}

// sign signs what waits for the names that he knows or accepts; life 0 is 30 days.
func (o *operator) sign(life time.Duration, accept ...strict.CertificateRequest) strict.CertificateResult {
	o.t.Helper()
	authority, err := ca.Load(o.cfg.Domain, filepath.Join(o.dir, "ca.pem"), filepath.Join(o.dir, "ca.key"), "", time.Now)
	if err != nil {
		o.t.Fatal(err)
	}
	if life == 0 {
		life = ca.DefaultLife
	}
	accepted := make(map[string][]identity.KeyHash)
	for _, q := range accept {
		name := q.Name
		if q.Role != identity.Portal {
			name = string(q.Role) + "/" + name
		}
		accepted[name] = append(accepted[name], q.Key)
	}
	result, err := strict.CertificateJob{Requests: o.requests(), Authority: authority, Life: life, Known: o.known, Accepted: accepted}.Sign(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	o.known = result.Known
	return result
}

func (o *operator) install(m strict.Certificates) admin.Installed {
	o.t.Helper()
	var v admin.Installed
	if err := local.Call(o.t.Context(), o.cfg.Socket, admin.CommandCASigned, m, &v); err != nil {
		o.t.Fatal(err)
	}
	return v
}

// TestJoiningWaitsForTheCAKey: a server without a CA key has who joins wait, with signs
// of life; what the operator signs elsewhere is given to who waits, and to who comes back
// later with the same token, after its time and after a restart of the server.
func TestJoiningWaitsForTheCAKey(t *testing.T) {
	r := newRig(t)
	o := r.takeCAKey()
	ann, relay := r.joiner(r.invite(admin.InviteRequest{Name: "ann"})), r.joiner(r.invite(admin.InviteRequest{Name: "relay-1", Life: time.Minute}))
	answered := make(chan []byte, 1)
	go func() {
		b, err := ann.exchange()
		if err != nil {
			t.Error(err)
		}
		answered <- b
	}()
	asked := o.waits("ann")
	if asked.Key != identity.HashPublic(ann.key.Public()) || asked.Role != identity.Portal {
		t.Errorf("asked for %+v", asked)
	}
	leave(t, relay)
	askedRelay := o.waits("relay-1")

	// A stranger gets nothing, nor does another name with an accepted key.
	result := o.sign(0)
	if len(result.Made) != 0 || len(result.Strangers) != 2 {
		t.Fatalf("signed without a word of the operator: %+v", result)
	}
	wrong := asked
	wrong.Name = "bo"
	if result := o.sign(0, wrong); len(result.Made) != 0 {
		t.Fatalf("signed for a key that was accepted for another name: %+v", result)
	}
	var status Status
	r.ask(CommandStatus, &status)
	if status.Pending != 2 || !status.PendingSince.Equal(asked.Since) {
		t.Errorf("status says %d since %v", status.Pending, status.PendingSince)
	}

	result = o.sign(0, asked)
	if len(result.Made) != 1 || len(result.Strangers) != 1 {
		t.Fatalf("%+v", result)
	}
	if v := o.install(result.Signed); v.Installed != 1 || v.Waiting != 1 || len(v.Refused) > 0 {
		t.Errorf("installed: %+v", v)
	}
	credentials, err := ann.take(<-answered)
	if err != nil {
		t.Fatal(err)
	}
	r.credentials["ann"] = credentials
	skipTo[wire.GrantsComplete](r.portal("ann"))
	// It may ask again, and nobody else has its token.
	again := ann.mustJoin()
	if again.Leaf().SerialNumber.Cmp(credentials.Leaf().SerialNumber) != 0 {
		t.Error("another certificate for the same question")
	}
	thief := *ann
	thief.key = newKey(t)
	thief.ask.CSR = r.csr(identity.Portal, "ann", thief.key)
	if _, err := thief.join(); !isRefused(err, wire.ReasonToken) {
		t.Errorf("another key with the token: %v", err)
	}

	// The relay's token would have ended long ago.
	tokens, err := tokensOf(r)
	if err != nil || tokens["relay-1"].Ends.Before(time.Now().Add(20*24*time.Hour)) {
		t.Errorf("the relay's token is %+v, %v", tokens["relay-1"], err)
	}
	r.shutdown()
	r.start()
	o.install(o.sign(0, askedRelay).Signed)
	r.credentials["relay-1"] = relay.mustJoin()
	r.relay("relay-1").leave()

	// Without the CA key there is no other way.
	err = local.Call(t.Context(), r.cfg.Socket, admin.CommandIssue, admin.IssueRequest{Role: identity.Portal, Name: "bo", Request: r.csr(identity.Portal, "bo", newKey(t))}, &admin.Issued{})
	if err == nil || !strings.Contains(err.Error(), "invite") {
		t.Errorf("issued: %v", err)
	}
}

// leave asks to join, and hangs up when it is told to wait.
func leave(t *testing.T, j *joiner) {
	t.Helper()
	c, err := j.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(wire.AppendMessage(nil, j.ask)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, wire.ControlHeaderLen+32)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	if list, err := answers(b); err != nil || len(list) != 1 || list[0] != (wire.EnrolWait{Key: identity.HashPublic(j.key.Public())}) {
		t.Fatalf("told %+v, %v", list, err)
	}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func tokensOf(r *rig) (map[string]tokenView, error) {
	var list []tokenView
	if err := local.Call(r.t.Context(), r.cfg.Socket, admin.CommandEnrolments, struct{}{}, &list); err != nil {
		return nil, err
	}
	byName := make(map[string]tokenView)
	for _, v := range list {
		byName[v.Name] = v
	}
	return byName, nil
}

type tokenView struct {
	Name string    `json:"name"`
	Ends time.Time `json:"ends"`
}

// TestRenewalWaitsForTheCAKey: portals, relays and the server itself go on with what they
// have; what was signed is pushed to who is connected, and given to the others when they
// come back, to those that have expired too.
func TestRenewalWaitsForTheCAKey(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	o := r.takeCAKey()
	ann, plant, relay := r.portal("ann"), r.portal("plant"), r.relay("relay-1")
	old := r.credentials["ann"]
	request := wire.Renew{Request: 7, CSR: r.csr(identity.Portal, "ann", old.Certificate().PrivateKey.(crypto.Signer))}
	ann.conn.Send(request)
	if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonWaiting || m.Request != 7 {
		t.Errorf("told %+v", m)
	}
	plant.conn.Send(wire.Renew{Request: 1, CSR: r.csr(identity.Portal, "plant", r.credentials["plant"].Certificate().PrivateKey.(crypto.Signer))})
	skipTo[wire.RenewRefused](plant)
	plant.leave()
	relay.conn.Send(wire.Renew{Request: 9, CSR: r.csr(identity.Relay, "relay-1", r.credentials["relay-1"].Certificate().PrivateKey.(crypto.Signer))})
	skipTo[wire.RenewRefused](relay)

	// Whom he knows by the key is signed for without a question.
	o.known = strict.Known{Domain: r.cfg.Domain, Portals: map[string][]identity.KeyHash{"ann": {old.Key()}, "plant": {r.credentials["plant"].Key()}}, Relays: map[string][]identity.KeyHash{"relay-1": {r.credentials["relay-1"].Key()}}}
	signed := o.sign(0)
	if len(signed.Made) != 3 || len(signed.Strangers)+len(signed.Refused) > 0 {
		t.Fatalf("%+v", signed)
	}
	if v := o.install(signed.Signed); v.Installed != 3 || v.Waiting != 0 {
		t.Fatalf("installed: %+v", v)
	}
	chain := chainOf(t, skipTo[wire.Renewed](ann), 7)
	chainOf(t, skipTo[wire.Renewed](relay), 9)
	if chain[0].SerialNumber.Cmp(old.Leaf().SerialNumber) == 0 || identity.HashKey(chain[0]) != old.Key() {
		t.Errorf("pushed: the certificate %x", chain[0].SerialNumber)
	}
	if err := old.Renew(chain, nil); err != nil {
		t.Fatal(err)
	}
	plant = r.portal("plant")
	plant.conn.Send(wire.Renew{Request: 2, CSR: r.csr(identity.Portal, "plant", r.credentials["plant"].Certificate().PrivateKey.(crypto.Signer))})
	chainOf(t, skipTo[wire.Renewed](plant), 2)

	// The next time it is a new one that waits, not the old one again.
	ann.leave()
	ann = r.portal("ann")
	ann.conn.Send(request)
	skipTo[wire.RenewRefused](ann)
	o.waits("ann")

	// Revoked, it waits no more, and what was signed meanwhile is of no use.
	late := o.sign(0)
	r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "ann"})
	if v := o.install(late.Signed); v.Installed != 0 || v.Waiting != 0 {
		t.Errorf("installed after the revocation: %+v", v)
	}
}

// TestServersOwnCertificateWaitsForTheCAKey: the server shows the old one until then, and
// the new one from the next handshake on.
func TestServersOwnCertificateWaitsForTheCAKey(t *testing.T) {
	r := newRig(t, "ann")
	o := r.takeCAKey(func(c *config.Config) { c.CertificateLife = 90 * time.Minute }) // two thirds of which it is dated back
	asked := o.waits("server")
	r.log.wait(t, "server's certificate is to be renewed")
	if asked.Role != identity.Server {
		t.Errorf("asked for %+v", asked)
	}
	before := shown(t, r)
	o.install(o.sign(0, asked).Signed)
	r.log.wait(t, "server's certificate renewed")
	if after := shown(t, r); after.SerialNumber.Cmp(before.SerialNumber) == 0 || identity.HashKey(after) != asked.Key {
		t.Errorf("it shows the certificate %x", after.SerialNumber)
	}
	if on, err := identity.LoadCertificates(r.cfg.Certificate); err != nil || !on[0].Equal(shown(t, r)) {
		t.Errorf("another certificate is on disk: %v", err)
	}
}

// shown returns the certificate that the server shows.
func shown(t *testing.T, r *rig) *x509.Certificate {
	t.Helper()
	c, err := r.joiner(r.invite(admin.InviteRequest{Name: "bo"})).dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// TestWhatIsNotInstalled: the server believes the operator's machine in nothing that it
// can check.
func TestWhatIsNotInstalled(t *testing.T) {
	r := newRig(t, "ann")
	o := r.takeCAKey()
	ann := r.portal("ann")
	ann.conn.Send(wire.Renew{Request: 1, CSR: r.csr(identity.Portal, "ann", r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer))})
	skipTo[wire.RenewRefused](ann)
	asked := o.waits("ann")
	good := o.sign(0, asked)

	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandCASigned, strict.Certificates{Domain: "example.com", Certificates: good.Signed.Certificates}, &admin.Installed{}); err == nil {
		t.Error("for another domain: installed")
	}
	stranger, err := ca.New(r.cfg.Domain, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	bad := strict.CertificateJob{Requests: o.requests(), Authority: stranger, Life: time.Hour, Known: o.known}
	forged, err := bad.Sign(t.Context())
	if err != nil || len(forged.Made) != 1 {
		t.Fatalf("%+v, %v", forged, err)
	}
	other := good.Signed.Certificates[0]
	other.Name = "bo"
	broken := good.Signed.Certificates[0]
	broken.Chain = [][]byte{{1, 2}}
	v := o.install(strict.Certificates{Domain: r.cfg.Domain, Certificates: []strict.Certificate{forged.Signed.Certificates[0], broken, other}})
	if v.Installed != 0 || len(v.Refused) != 2 || v.Waiting != 1 {
		t.Errorf("installed: %+v", v)
	}
	// The right one is taken beside wrong ones.
	if v := o.install(strict.Certificates{Domain: r.cfg.Domain, Certificates: []strict.Certificate{broken, good.Signed.Certificates[0]}}); v.Installed != 1 || len(v.Refused) != 1 {
		t.Errorf("installed: %+v", v)
	}
	chainOf(t, skipTo[wire.Renewed](ann), 1)
}

func chainOf(t *testing.T, m wire.Renewed, request uint32) []*x509.Certificate {
	t.Helper()
	chain, err := identity.ParseChain(m.Chain)
	if err != nil || m.Request != request {
		t.Fatalf("an answer to %d: %v", m.Request, err)
	}
	return chain
}

// TestNextKeyWaitsForBothSignatures: with neither key on the server a portal has another
// key when the policy and then the certificate were signed for it. One file of known keys
// serves both: what the first signature has accepted, the second asks nothing of.
func TestNextKeyWaitsForBothSignatures(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	holder, o := r.takePolicyKey(), r.takeCAKey()
	ann := r.portal("ann")
	skipTo[wire.GrantsComplete](ann)
	fresh := newKey(t)
	next := identity.HashPublic(fresh.Public())
	ann.conn.Send(wire.Renew{Request: 5, CSR: r.csr(identity.Portal, "ann", fresh)})
	if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonWaiting {
		t.Fatalf("told %+v", m)
	}
	if q := o.requests().Requests; len(q) != 0 {
		t.Errorf("certificates wait for %+v", q)
	}
	holder.install(holder.sign(applying([]string{web}).Source, strict.Accepted{Portals: map[string][]identity.KeyHash{"ann": {next}}}).Signed)
	if q := o.waits("ann"); q.Key != next {
		t.Errorf("a certificate waits for the key %s", q.Key)
	}
	o.known = holder.known
	signed := o.sign(0)
	if len(signed.Made) != 1 || len(signed.Strangers) > 0 {
		t.Fatalf("%+v", signed)
	}
	o.install(signed.Signed)
	chain := chainOf(t, skipTo[wire.Renewed](ann), 5)
	if identity.HashKey(chain[0]) != next {
		t.Error("pushed: a certificate for another key")
	}
	// Until it is seen with the new key, the old one counts too.
	ann.leave()
	ann = r.portal("ann")
	ann.leave()
	if err := r.credentials["ann"].Renew(chain, fresh); err != nil {
		t.Fatal(err)
	}
	ann = r.portal("ann")
	for key := (identity.KeyHash{}); key != next; {
		g, err := grant.Parse(skipTo[wire.PutGrant](ann).Grant)
		if err != nil {
			t.Fatal(err)
		}
		key = g.Entry.Key
	}
}
