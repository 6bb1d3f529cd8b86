package daemon

import (
	"crypto"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/strict"
)

// policyHolder is who has the policy key of a rig, on another machine.
type policyHolder struct {
	*rig
	key   ed25519.PrivateKey
	known strict.Known
}

// takePolicyKey takes the policy key off the server, which is started anew without it.
// Who has it knows the keys of now.
func (r *rig) takePolicyKey() *policyHolder {
	r.t.Helper()
	key, err := admin.LoadSigner(r.cfg.PolicyKey)
	if err != nil {
		r.t.Fatal(err)
	}
	r.shutdown()
	r.cfg.PolicyKey, r.cfg.PolicyPublic = "", key.Public().(ed25519.PublicKey)
	r.start()
	o := &policyHolder{rig: r, key: key}
	q := o.request()
	authorities, err := wire.ParseAuthorities(q.Authorities)
	if err != nil {
		r.t.Fatal(err)
	}
	chain, err := identity.ParseChain(authorities.Certificates)
	if err != nil {
		r.t.Fatal(err)
	}
	o.known = strict.Known{Domain: q.Domain, Authorities: []identity.KeyHash{identity.HashKey(chain[0])}, Portals: make(map[string][]identity.KeyHash)}
	for _, p := range q.Portals {
		o.known.Portals[p.Name] = []identity.KeyHash{p.Key}
	}
	return o
}

func (o *policyHolder) request() strict.Request {
	o.t.Helper()
	var q strict.Request
	o.ask(admin.CommandSignAsk, &q)
	return q
}

// sign signs what the server asks for now, by a policy, as far as it is accepted.
func (o *policyHolder) sign(source string, accepted strict.Accepted) strict.Result {
	o.t.Helper()
	done, err := strict.Job{Request: o.request(), File: "policy.toml", Source: []byte(source), Key: o.key, Known: o.known, Accepted: accepted}.Sign(time.Now())
	if err != nil || len(done.Strangers) > 0 {
		o.t.Fatalf("%+v, %v", done, err)
	}
	o.known = done.Known
	return done
}

func (o *policyHolder) install(signed strict.Signed) (result admin.PolicyResult) {
	o.t.Helper()
	if err := local.Call(o.t.Context(), o.cfg.Socket, admin.CommandInstall, admin.InstallRequest{Signed: signed}, &result); err != nil {
		o.t.Fatal(err)
	}
	return result
}

func (o *policyHolder) status() (s Status) {
	o.t.Helper()
	o.ask(CommandStatus, &s)
	return s
}

// TestServerThatLosesItsPolicyKeyGoesOn: a server becomes a strict one by its
// configuration. What was granted stays, and who joins waits until the authorities are
// signed too.
func TestServerThatLosesItsPolicyKeyGoesOn(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	file := r.cfg.PolicyKey
	o := r.takePolicyKey()
	ann := r.portal("ann")
	put := skipTo[wire.PutGrant](ann)
	if m := skipTo[wire.GrantsComplete](ann); m.Version != 2 || !m.SignedBy(r.cfg.PolicyPublic) {
		t.Errorf("told the version %+v", m)
	}
	r.cfg.PolicyKey = file // for verify
	r.verify(put)
	if chain := r.renew(ann, r.credentials["ann"].Certificate().PrivateKey.(crypto.Signer)); identity.HashKey(chain[0]) != r.credentials["ann"].Key() {
		t.Error("renewed with the same key, it has another")
	}

	join := r.joiner(r.invite(admin.InviteRequest{Name: "cy"}))
	if m := joinAnswer[wire.EnrolRefused](join); m.Reason != wire.ReasonNotGranted {
		t.Errorf("joined before the authorities were signed: %+v", m)
	}
	o.install(o.sign(applying([]string{web}).Source, strict.Accepted{}).Signed)
	if told := skipTo[wire.Authorities](ann); !told.SignedBy(r.cfg.PolicyPublic) {
		t.Errorf("told %+v", told)
	}
	if m := joinAnswer[wire.Authorities](join); !m.SignedBy(r.cfg.PolicyPublic) {
		t.Errorf("with the same token, afterwards: %+v", m)
	}
}

// TestNextKeyOfAPortalWaitsForPermissions: the certificate comes when the policy key has
// signed for the new key, which its holder must have accepted; until then nothing of the
// old one is touched, and all else is signed.
func TestNextKeyOfAPortalWaitsForPermissions(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	o := r.takePolicyKey()
	ann, plant := r.portal("ann"), r.portal("plant")
	skipTo[wire.GrantsComplete](ann)
	skipTo[wire.GrantsComplete](plant)
	fresh, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	nextKey := identity.HashPublic(fresh.Public())
	ann.conn.Send(wire.Renew{Request: 1, CSR: r.csr(identity.Portal, "ann", fresh)})
	if m := skipTo[wire.RenewRefused](ann); m.Reason != wire.ReasonWaiting {
		t.Fatalf("a new key: %+v", m)
	}
	source := applying([]string{web}).Source
	if done := o.sign(source, strict.Accepted{}); len(done.Later) != 1 || done.Later[0].Key != nextKey || done.Grants != 1 {
		t.Errorf("not accepted: %+v", done)
	} else {
		o.install(done.Signed)
	}
	if s := o.status(); len(s.UnsignedPortals) != 1 || s.UnsignedPortals[0] != "ann" || s.Unsigned != 1 {
		t.Errorf("status says that %d grants and the keys of %q are not signed", s.Unsigned, s.UnsignedPortals)
	}
	o.install(o.sign(source, strict.Accepted{Portals: map[string][]identity.KeyHash{"ann": {nextKey}}}).Signed)
	// The exit hears of the permission for the new key, and of none that was taken back.
	for {
		m := next[wire.ToPortal](plant)
		if gone, ok := m.(wire.RemoveGrant); ok {
			t.Fatalf("taken back: %+v", gone)
		}
		if put, ok := m.(wire.PutGrant); ok {
			if g, err := grant.Parse(put.Grant); err != nil || g.Entry.Key != nextKey || g.Version != 4 {
				t.Errorf("put %+v, %v", g.Permission, err)
			}
			break
		}
	}
	m := skipTo[wire.Renewed](ann)
	chain, err := identity.ParseChain(m.Chain)
	if err != nil || m.Request != 1 || identity.HashKey(chain[0]) != nextKey {
		t.Errorf("renewed: request %d, %v", m.Request, err)
	}
	if s := o.status(); len(s.UnsignedPortals) != 0 || s.Unsigned != 0 {
		t.Errorf("status says that %d grants and the keys of %q are not signed", s.Unsigned, s.UnsignedPortals)
	}
}

// TestAllowedOpensWhenItWasSigned: what is allowed on request of a strict server is
// granted when the policy key has signed it, for the time that was asked, and ends by
// itself, which the audit log has.
func TestAllowedOpensWhenItWasSigned(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	o := r.takePolicyKey()
	source := applying([]string{web}).Source + "on_request = \"1h\"\n"
	o.install(o.sign(source, strict.Accepted{}).Signed)
	ann := r.portal("ann")
	skipTo[wire.GrantsComplete](ann)
	var allowed admin.AllowResult
	if err := local.Call(t.Context(), r.cfg.Socket, admin.CommandAllow, admin.AllowRequest{Forward: "web", For: "6s", By: "cy"}, &allowed); err != nil {
		t.Fatal(err)
	}
	if !allowed.Waits || allowed.Added != 0 {
		t.Errorf("allowed: %+v", allowed)
	}
	opening := allowed.Openings[0]
	if done := o.sign(source, strict.Accepted{}); len(done.Closed) != 1 || done.Closed[0] != opening || done.Grants != 0 {
		t.Errorf("not accepted: %+v", done)
	}
	for what, job := range map[string]strict.Job{
		"what nobody asked for":          {Source: []byte(source), Accepted: strict.Accepted{Openings: []policy.OpeningKey{{Forward: "web", Only: "ann"}}}},
		"what the own policy grants not": {Source: []byte(strings.Replace(source, `"1h"`, `"5s"`, 1)), Accepted: strict.Accepted{Openings: []policy.OpeningKey{opening.Key()}}},
	} {
		job.Request, job.File, job.Key, job.Known = o.request(), "policy.toml", o.key, o.known
		if done, err := job.Sign(time.Now()); err == nil {
			t.Errorf("%s: signed %+v", what, done)
		}
	}
	o.install(o.sign(source, strict.Accepted{Openings: []policy.OpeningKey{opening.Key()}}).Signed)
	put := skipTo[wire.PutGrant](ann)
	if g, err := grant.Parse(put.Grant); err != nil || !g.End.Equal(opening.Until) || !g.Permitted(r.cfg.PolicyPublic) {
		t.Errorf("granted %+v, %v", g.Permission, err)
	}
	for _, answer := range []string{audit.Waiting, audit.Granted, audit.Ended} {
		list := r.records("an opening "+answer, func(a audit.Record) bool { return a.Event == "allow" && a.Answer == answer })
		if len(list) != 1 || list[0].Forward != "web" || !strings.Contains(list[0].Detail, "by cy") {
			t.Errorf("%s: %+v", answer, list)
		}
	}
	var left []admin.AllowedOpening
	if r.ask(admin.CommandAllowed, &left); len(left) > 0 {
		t.Errorf("open after its end: %+v", left)
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
