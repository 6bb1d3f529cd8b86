package daemon

import (
	"crypto"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/strict"
)

// TestServerThatLosesItsPolicyKeyGoesOn: a server becomes a strict one by its
// configuration. What was granted stays; new keys are not made for portals that would
// lose their grants by them; and who joins waits until the authorities are signed too.
func TestServerThatLosesItsPolicyKeyGoesOn(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	key, err := admin.LoadSigner(r.cfg.PolicyKey)
	if err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	file := r.cfg.PolicyKey
	r.cfg.PolicyKey, r.cfg.PolicyPublic = "", key.Public().(ed25519.PublicKey)
	r.start()

	ann := r.portal("ann")
	put := skipTo[wire.PutGrant](ann)
	r.cfg.PolicyKey = file // for verify
	r.verify(put)
	fresh, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ann.conn.Send(wire.Renew{Request: 1, CSR: r.csr(identity.Portal, "ann", fresh)})
	if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonNotGranted {
		t.Errorf("a new key: %+v", m)
	}
	ann.leave()
	r.wantNobody()
	ann = r.portal("ann")
	if chain := r.renew(ann, r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer)); identity.HashKey(chain[0]) != r.credentials["ann"].Key() {
		t.Error("renewed with the same key, it has another")
	}

	join := r.joiner(r.invite(admin.InviteRequest{Name: "cy"}))
	if m := joinAnswer[wire.EnrolRefused](join); m.Reason != wire.ReasonNotGranted {
		t.Errorf("joined before the authorities were signed: %+v", m)
	}
	var q strict.Request
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandSignAsk, struct{}{}, &q); err != nil {
		t.Fatal(err)
	}
	authorities, err := wire.ParseAuthorities(q.Authorities)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.ParseChain(authorities.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	known := strict.Known{Domain: q.Domain, Authorities: []identity.KeyHash{identity.HashKey(chain[0])}, Portals: make(map[string][]identity.KeyHash)}
	for _, p := range q.Portals {
		known.Portals[p.Name] = []identity.KeyHash{p.Key}
	}
	done, err := strict.Job{Request: q, File: "policy.toml", Source: []byte(applying([]string{web}).Source), Key: key, Known: known}.Sign(time.Now())
	if err != nil || len(done.Strangers) > 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	var result admin.PolicyResult
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandInstall, done.Signed, &result); err != nil {
		t.Fatal(err)
	}
	if told := skipTo[wire.Authorities](ann); !told.SignedBy(r.cfg.PolicyPublic) {
		t.Errorf("told %+v", told)
	}
	if m := joinAnswer[wire.Authorities](join); !m.SignedBy(r.cfg.PolicyPublic) {
		t.Errorf("with the same token, afterwards: %+v", m)
	}
}

// joinAnswer returns the first answer to who joins.
func joinAnswer[M wire.ToJoiner](j *joiner) M {
	j.r.t.Helper()
	b, err := j.exchange()
	if err != nil {
		j.r.t.Fatal(err)
	}
	list, err := answers(b)
	if err != nil || len(list) == 0 {
		j.r.t.Fatalf("%v, %v", list, err)
	}
	m, ok := list[0].(M)
	if !ok {
		j.r.t.Fatalf("answered with %+v", list[0])
	}
	return m
}
