package daemon

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
)

// renew asks for a new certificate for the key and returns its chain.
func (r *rig) renew(p *peer[wire.ToPortal, wire.FromPortal], key crypto.Signer) []*x509.Certificate {
	r.t.Helper()
	p.conn.Send(wire.Renew{Request: 7, CSR: r.csr(identity.Portal, p.name, key)})
	var chain []*x509.Certificate
	m := skipTo[wire.Renewed](p)
	if m.Request != 7 {
		r.t.Errorf("an answer to the request %d", m.Request)
	}
	for _, der := range m.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			r.t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return chain
}

// skipTo takes the next M, whatever comes before it.
func skipTo[M, In, Out wire.Message](p *peer[In, Out]) M {
	p.t.Helper()
	for late := time.After(patience); ; {
		select {
		case m, ok := <-p.in:
			if !ok {
				p.t.Fatalf("%s: the connection ended with %v", p.name, p.wantEnd())
			}
			if got, ok := any(m).(M); ok {
				return got
			}
		case <-late:
			var want M
			p.t.Fatalf("%s got no %T", p.name, want)
		}
	}
}

func TestCertificateIsRenewedOverTheConnection(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	ann := r.portal("ann")
	old := r.credentials["ann"]
	key := old.Certificate().PrivateKey.(crypto.Signer)
	chain := r.renew(ann, key)
	if identity.HashKey(chain[0]) != old.Key() || chain[0].SerialNumber.Cmp(old.Leaf().SerialNumber) == 0 {
		t.Error("it is not a new certificate for the same key")
	}
	// Nothing was put, removed or ended by it.
	select {
	case m := <-ann.in:
		t.Errorf("after the renewal came %#v", m)
	default:
	}
	if err := old.Renew(chain, nil); err != nil {
		t.Fatal(err)
	}
	ann.leave()
	skipTo[wire.GrantsComplete](r.portal("ann"))
}

// A new key counts beside the old one until it has shown itself; then the old one is
// worth nothing, and nothing that ran was cut.
func TestKeyIsChangedByRenewal(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	plant, ann := r.portal("plant"), r.portal("ann")
	skipTo[wire.GrantsComplete](plant)
	skipTo[wire.GrantsComplete](ann)
	old := r.credentials["ann"]
	fresh, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := r.renew(ann, fresh)
	put := r.verify(skipTo[wire.PutGrant](plant))
	if put.Entry.Key != identity.HashKey(chain[0]) {
		t.Errorf("the new permission names the key %s", put.Entry.Key)
	}
	skipTo[wire.GrantsComplete](plant)
	// The old key still connects: its answer may have been lost.
	ann.leave()
	ann = r.portal("ann")
	skipTo[wire.GrantsComplete](ann)
	if len(r.log.all("portal's key was replaced")) > 0 {
		t.Error("a connection was cut")
	}
	ann.leave()
	oldChain, oldKey := old.Leaf(), old.Certificate().PrivateKey.(crypto.Signer)
	if err := old.Renew(chain, fresh); err != nil {
		t.Fatal(err)
	}
	ann = r.portal("ann")
	removed := skipTo[wire.RemoveGrant](plant)
	if removed.Grant == put.ID() {
		t.Error("the permission of the new key was taken back")
	}
	skipTo[wire.GrantsComplete](plant)
	skipTo[wire.GrantsComplete](ann)
	if err := old.Renew([]*x509.Certificate{oldChain}, oldKey); err != nil {
		t.Fatal(err)
	}
	if got := connectRefused(r, "ann"); got != wire.ReasonRevoked {
		t.Errorf("the old key is told %v", got)
	}
	plant.conn.Send(wire.RevocationsHeld{})
	skipTo[wire.RevocationsComplete](plant) // it is still connected
}

func TestWhatIsNotRenewed(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.portal("plant").leave()
	for what, csr := range map[string][]byte{
		"another's name": r.csr(identity.Portal, "plant", r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer)),
		"another role":   r.csr(identity.Server, "ann", r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer)),
		"no request":     []byte("x"),
	} {
		ann := r.portal("ann")
		ann.conn.Send(wire.Renew{Request: 1, CSR: csr})
		if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonProtocol || m.Request != 1 {
			t.Errorf("%s: %+v", what, m)
		}
		// Once in a while is enough.
		ann.conn.Send(wire.Renew{Request: 2, CSR: csr})
		if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonBusy || m.Request != 2 {
			t.Errorf("%s, again at once: %+v", what, m)
		}
		ann.leave()
		r.wantNobody()
	}
	if got := r.records("of refused renewals", func(a audit.Record) bool { return a.Event == "renew" && a.Answer == audit.Refused }); len(got) == 0 || got[0].Portal != "ann" {
		t.Errorf("audited: %+v", got)
	}
}

// T23, at the server: a revoked portal is cut off at once, everybody is told, and its
// name can be invited anew.
func TestRevokedPortalIsCutOffAndInvitedAnew(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	ann, plant, relay := r.portal("ann"), r.portal("plant"), r.relay("relay-1")
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{ann, plant} {
		p.conn.Send(wire.RevocationsHeld{})
		skipTo[wire.RevocationsComplete](p)
	}
	relay.conn.Send(wire.RevocationsHeld{})
	skipTo[wire.RevocationsComplete](relay)
	pending := r.invite(admin.InviteRequest{Name: "ann", Replace: true})
	old := r.credentials["ann"]

	result := r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "ann"})
	if result.Epoch != 2 || result.Removed != 1 || result.Tokens != 1 {
		t.Errorf("result %+v", result)
	}
	ann.wantGoodbye(wire.ReasonRevoked)
	skipTo[wire.RemoveGrant](plant)
	byName, byKey := skipTo[wire.Revocation](plant), skipTo[wire.Revocation](plant)
	if byName.Name != "ann" || byName.Role != identity.Portal || byKey.Key != old.Key() || skipTo[wire.RevocationsComplete](plant).Epoch != 2 {
		t.Errorf("plant is told %v and %v", byName, byKey)
	}
	if skipTo[wire.Revocation](relay).Name != "ann" {
		t.Error("the relay is told of another")
	}
	// Its certificate is not even good for the handshake, nor is another for its key.
	own, err := ca.Load("example.org", r.cfg.CA, r.cfg.CAKey, "", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if greeted(r, old, old.Certificate()) {
		t.Error("a revoked certificate is greeted")
	}
	if greeted(r, old, leafOf(t, own, old.Certificate().PrivateKey.(crypto.Signer), func(c *x509.Certificate) { c.NotBefore = time.Now() })) {
		t.Error("a newer certificate for a revoked key is greeted")
	}
	if greeted(r, old, identitytest.Malleated(t, old.Certificate())) {
		t.Error("the other signature of a revoked certificate is greeted")
	}
	if _, err := r.joiner(pending).join(); !isRefused(err, wire.ReasonToken) {
		t.Errorf("an invitation from before the revocation: %v", err)
	}

	j := r.joiner(r.invite(admin.InviteRequest{Name: "ann"}))
	again := *j
	again.key = old.Certificate().PrivateKey.(crypto.Signer)
	again.ask.CSR = r.csr(identity.Portal, "ann", again.key)
	if _, err := again.join(); err == nil {
		t.Error("a revoked key has joined")
	}
	j = r.joiner(r.invite(admin.InviteRequest{Name: "ann"}))
	r.credentials["ann"] = j.mustJoin()
	ann = r.portal("ann")
	grants, _ := r.grants(ann, 1)
	if len(grants) != 1 {
		t.Errorf("%d grants for the name that came anew", len(grants))
	}
	// Whoever comes later, or again, hears what is new to it.
	ann.conn.Send(wire.RevocationsHeld{Epoch: 1})
	if m := skipTo[wire.Revocation](ann); m.Epoch != 2 {
		t.Errorf("told of epoch %d first", m.Epoch)
	}
	if m := skipTo[wire.RevocationsComplete](ann); m.Epoch != 2 {
		t.Errorf("complete at epoch %d", m.Epoch)
	}
}

func TestOneCertificateIsRevokedByItsNumber(t *testing.T) {
	r := newRig(t, "ann")
	ann := r.portal("ann")
	before := r.credentials["ann"].Certificate()
	chain := r.renew(ann, before.PrivateKey.(crypto.Signer))
	ann.leave()
	ann = r.portal("ann")
	r.revoke(admin.RevokeRequest{Serial: hex.EncodeToString(before.Leaf.SerialNumber.Bytes())})
	ann.wantGoodbye(wire.ReasonRevoked)
	if greeted(r, r.credentials["ann"], before) {
		t.Error("the revoked certificate is greeted")
	}
	if err := r.credentials["ann"].Renew(chain, nil); err != nil {
		t.Fatal(err)
	}
	skipTo[wire.GrantsComplete](r.portal("ann")) // the newer one of the same key counts
}

// T35: who holds more than we do says that our state is an old one.
func TestRestoredStateIsNoticed(t *testing.T) {
	r := newRig(t, "ann", "bo")
	r.shutdown()
	old, err := os.ReadFile(r.cfg.StateFile())
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "bo"})
	r.shutdown()
	if err := os.WriteFile(r.cfg.StateFile(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	ann := r.portal("ann")
	ann.conn.Send(wire.RevocationsHeld{Epoch: 2})
	if m := skipTo[wire.RevocationsComplete](ann); m.Epoch != 0 {
		t.Errorf("the server says epoch %d", m.Epoch)
	}
	r.log.wait(t, "epoch regression")
	if got := r.records("of the regression", func(a audit.Record) bool { return a.Event == "revocations" }); got[0].Portal != "ann" || got[0].Count != 2 {
		t.Errorf("audited: %+v", got)
	}
	if got := r.revoke(admin.RevokeRequest{Role: identity.Portal, Name: "bo"}); got.Epoch != 4 {
		t.Errorf("revoked again at epoch %d, want one that nobody holds", got.Epoch)
	}
}

// F45: one CA takes the place of another while everybody stays connected.
func TestRollOverKeepsEverybodyConnected(t *testing.T) {
	r := newRig(t, "ann", "plant", "bo")
	ann := r.portal("ann")
	first := skipTo[wire.Authorities](ann)
	var status admin.CAStatus
	r.ask(admin.CommandCARoll, &status)
	both := skipTo[wire.Authorities](ann)
	if both.Version != first.Version+1 || len(both.Certificates) != 2 || both.Issuing == first.Issuing || status.Issuing != both.Issuing {
		t.Fatalf("told of version %d with %d authorities", both.Version, len(both.Certificates))
	}
	if !slices.Contains(status.Behind, "portal ann") || len(status.Behind) != 3 {
		t.Errorf("behind are %q", status.Behind)
	}
	r.log.wait(t, "server's certificate renewed")
	// Who knows only the old CA takes the server, and is taken.
	plant := r.portal("plant")
	if got := skipTo[wire.Authorities](plant); got.Version != both.Version {
		t.Errorf("plant is told of version %d", got.Version)
	}
	var dropped admin.CAStatus
	old := hex.EncodeToString(first.Issuing[:])
	err := local.Call(t.Context(), r.cfg.Socket, admin.CommandCADrop, admin.CADropRequest{Key: old}, &dropped)
	if err == nil || !strings.Contains(err.Error(), "still have certificates by it") {
		t.Fatalf("dropped while it is in use: %v", err)
	}
	cas := certificatesOf(t, both)
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{ann, plant} {
		c := r.credentials[p.name]
		if err := c.Trust(cas); err != nil {
			t.Fatal(err)
		}
		if err := c.Renew(r.renew(p, c.Certificate().PrivateKey.(crypto.Signer)), nil); err != nil {
			t.Fatal(err)
		}
	}
	r.issue("bo", true)
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandCADrop, admin.CADropRequest{Key: old}, &dropped); err != nil {
		t.Fatal(err)
	}
	last := skipTo[wire.Authorities](ann)
	if len(last.Certificates) != 1 || last.Version != both.Version+1 {
		t.Errorf("told of version %d with %d authorities", last.Version, len(last.Certificates))
	}
	plant.leave()
	skipTo[wire.GrantsComplete](r.portal("plant"))
	select {
	case err := <-ann.ended:
		t.Errorf("ann was disconnected: %v", err)
	default:
	}
	// A restart finds the new CA and its key.
	r.shutdown()
	r.start()
	r.ask(admin.CommandCAStatus, &status)
	if status.Issuing != both.Issuing || len(status.Authorities) != 1 {
		t.Errorf("after a restart: %+v", status)
	}
	skipTo[wire.GrantsComplete](r.portal("ann"))
}

func certificatesOf(t *testing.T, m wire.Authorities) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for _, der := range m.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// A revoked CA revokes its leaves.
func TestRevokedAuthorityRevokesItsLeaves(t *testing.T) {
	r := newRig(t, "ann", "plant")
	ann, plant := r.portal("ann"), r.portal("plant")
	var status admin.CAStatus
	r.ask(admin.CommandCAStatus, &status)
	old := hex.EncodeToString(status.Issuing[:])
	err := local.Call(t.Context(), r.cfg.Socket, admin.CommandRevoke, admin.RevokeRequest{Authority: old}, &admin.RevokedResult{})
	if err == nil {
		t.Fatal("the only authority was revoked")
	}
	r.ask(admin.CommandCARoll, &status)
	r.log.wait(t, "server's certificate renewed")
	skipTo[wire.Authorities](plant)
	both := skipTo[wire.Authorities](plant)
	c := r.credentials["plant"]
	chain := r.renew(plant, c.Certificate().PrivateKey.(crypto.Signer))
	r.revoke(admin.RevokeRequest{Authority: old})
	ann.wantGoodbye(wire.ReasonRevoked)
	if greeted(r, r.credentials["ann"], r.credentials["ann"].Certificate()) {
		t.Error("a leaf of a revoked authority is greeted")
	}
	select {
	case err := <-plant.ended:
		t.Errorf("plant, which has renewed, was disconnected: %v", err)
	default:
	}
	plant.leave()
	if err := c.Renew(chain, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Trust(certificatesOf(t, both)); err != nil {
		t.Fatal(err)
	}
	skipTo[wire.GrantsComplete](r.portal("plant"))
}
