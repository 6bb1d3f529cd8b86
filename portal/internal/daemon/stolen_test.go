package daemon

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
)

// steal takes the server over: certificate, stamp key and CA key are the thief's
// now, and all grants from here on are signed by a policy key of his own. The true
// one was not there; it is returned.
func (w *world) steal() (right ed25519.PrivateKey) {
	w.Helper()
	_, own, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	right, w.policy = w.policy, own
	return right
}

// tell has the server say something to a portal.
func (w *world) tell(name string, m wire.ToPortal) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[name] == nil {
		w.Fatalf("%s is not connected", name)
	}
	w.conns[name].Send(m)
}

// TestStolenServerGrantsNothing: who has a server without the policy key gives no
// portal a grant, whatever he signs it with and however he came by it; both portals
// say of each what is wrong with it, and what was granted before goes on.
func TestStolenServerGrantsNothing(t *testing.T) {
	w := newWorld(t)
	ann, factory, web := w.pair()
	catcher, caught := w.catcher()
	target := "tcp://127.0.0.1:" + strconv.Itoa(int(catcher))
	permission := func(name string) grant.Permission {
		return w.permission(name, "ann", "tcp://"+w.freePort("tcp"), "factory", target)
	}
	stamped := func(p grant.Permission, policy ed25519.PrivateKey) grant.Grant {
		return grant.Sign(p, policy).Stamp(w.stamp, time.Now())
	}
	// What the policy key has signed once, and what the thief may have a copy of.
	gone := w.grant(permission("gone"))
	ann.waitState("gone", Up)
	factory.waitState("gone", Up)
	w.revoke(gone) // version 2
	w.wait("version 2", func() bool {
		return ann.Status().Server.Policy == 2 && factory.Status().Server.Policy == 2
	})
	web.Version = w.version
	kept := stamped(web.Permission, w.policy)
	over := permission("over")
	over.End = time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	ended := stamped(over, w.policy)
	first := wire.GrantsComplete{Version: 1}.Sign(w.policy)
	w.steal()

	altered := kept
	altered.Forward, altered.Target = "altered", endpoint.MustParse(target)
	renewed := kept
	renewed.Forward, renewed.Version = "newer", w.version+7
	type attempt struct {
		grant grant.Grant
		says  string
	}
	tried := map[string]attempt{
		"his own":             {stamped(permission("own"), w.policy), "bad signature"},
		"by the stamp key":    {stamped(permission("stamp"), w.stamp), "bad signature"},
		"another target":      {altered, "bad signature"},
		"another version":     {renewed, "bad signature"},
		"that was taken back": {gone.Stamp(w.stamp, time.Now()), "is of policy version 1, and version 2"},
	}
	for _, p := range []*testPortal{ann, factory} {
		w.tell(p.name, first) // as if nothing had come since
		for _, c := range tried {
			w.tell(p.name, wire.PutGrant{Grant: c.grant.AppendTo(nil)})
		}
		w.wait(p.name+" to have refused them all", func() bool { return len(p.Status().Refusals) == len(tried)+1 })
	}
	for _, p := range []*testPortal{ann, factory} { // nor does time go back
		w.tell(p.name, wire.PutGrant{Grant: ended.AppendTo(nil)})
	}
	for _, p := range []*testPortal{ann, factory} {
		w.wait(p.name+" to have the grant that has ended", func() bool { return len(p.Status().Forwards) == 2 })
	}
	tried["that has ended"] = attempt{ended, "until has passed"}
	for what, c := range tried {
		ann.wantConclusion(c.grant.Forward, false, c.says)
		if c.grant.Listen == web.Listen {
			continue
		}
		if conn, err := net.Dial("tcp", c.grant.Listen.HostPort()); err == nil {
			conn.Close()
			t.Errorf("ann listens for the grant %s", what)
		}
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d connections reached what the policy does not have", n)
	}
	if got, err := ask(w.dial("tcp", web.Listen.HostPort()), "hello"); got != "hello" {
		t.Errorf("what was granted before: %q, %v", got, err)
	}
}

// TestStolenServerLocksNobodyOut: the thief tells portals of versions that nobody has
// signed, up to the highest there is, and takes grants away. When the operator has his
// server back, what he signs next counts at once; what was taken away comes back signed
// anew, not as it was.
func TestStolenServerLocksNobodyOut(t *testing.T) {
	w := newWorld(t)
	ann, factory, web := w.pair()
	right := w.steal()
	signed := wire.GrantsComplete{Version: 1}.Sign(right)
	altered := signed
	altered.Version = 9
	highest := wire.GrantsComplete{Version: math.MaxUint64}
	for _, p := range []*testPortal{ann, factory} {
		for _, m := range []wire.GrantsComplete{altered, highest, highest.Sign(w.policy), highest.Sign(w.stamp)} {
			w.tell(p.name, m)
			w.wait(p.name+" to have refused it", func() bool {
				list := p.Status().Refusals
				return len(list) == 1 && list[0].Version == m.Version && strings.Contains(list[0].Text, "the policy key has not signed that")
			})
		}
		w.tell(p.name, wire.RemoveGrant{Grant: web.ID(), Reason: wire.ReasonGrantRemoved})
		w.tell(p.name, signed)
		w.wait(p.name+" to lose its grant", func() bool { return len(p.Status().Forwards) == 0 })
		if got := p.Status().Server.Policy; got != 1 {
			t.Errorf("%s: policy version %d counts", p.name, got)
		}
	}

	// The operator has it again.
	w.mu.Lock()
	w.policy = right
	w.mu.Unlock()
	web = web.Stamp(w.stamp, time.Now())
	for _, p := range []*testPortal{ann, factory} {
		w.tell(p.name, wire.PutGrant{Grant: web.AppendTo(nil)})
		w.tell(p.name, signed)
	}
	const gone = "was taken back here: have all permissions signed anew"
	w.wait("ann to have refused it", func() bool {
		list := ann.Status().Refusals
		return len(list) > 0 && strings.Contains(list[0].Text, gone)
	})
	ann.wantConclusion("web", false, gone)
	p := web.Permission
	p.Version = w.nextVersion()
	w.mu.Lock()
	w.grants = nil
	w.mu.Unlock()
	w.grant(p)
	ann.waitState("web", Up)
	if got, err := ask(w.dial("tcp", web.Listen.HostPort()), "hello"); got != "hello" {
		t.Errorf("signed anew: %q, %v", got, err)
	}
	w.wait("version 2", func() bool { return ann.Status().Server.Policy == 2 && factory.Status().Server.Policy == 2 })
}

// TestStolenServerPassesOffNoPortal: with the CA key the thief makes a certificate
// for a known name. Permissions name keys: the exit opens nothing for his portal, though
// the server brings the two together. (TestTunnelIsNotForAKeyThatNoGrantNames is the
// same from the entry's side.)
func TestStolenServerPassesOffNoPortal(t *testing.T) {
	w := newWorld(t)
	ann, _, web := w.pair()
	w.steal()
	minted := w.hostile("ann", "factory") // another key, the same name, the same CA
	for how, got := range minted.tries(web.ID(), web.AppendTo(nil)) {
		if got != wire.ReasonNotGranted {
			t.Errorf("ann's grant in the hands of a minted ann, %s: %v", how, got)
		}
	}
	rekeyed := web.Permission
	rekeyed.Entry = w.parties["ann"]
	own := grant.Sign(rekeyed, w.policy).Stamp(w.stamp, time.Now())
	for how, got := range minted.tries(own.ID(), own.AppendTo(nil)) {
		if got != wire.ReasonBadSignature && got != wire.ReasonNotGranted {
			t.Errorf("a grant that names the minted ann, %s: %v", how, got)
		}
	}
	ann.stop() // the minted one has taken its place at the server
	for how, got := range minted.tries(web.ID(), nil) {
		if got != wire.ReasonNotGranted {
			t.Errorf("ann's grant by its id, while ann is away, %s: %v", how, got)
		}
	}
}

// TestStolenServerChangesNeitherAuthoritiesNorRevocations: the authorities that
// count are those that the policy key signed, and what was revoked stays revoked,
// whatever the server says it knows of it. What it can is to deny.
func TestStolenServerChangesNeitherAuthoritiesNorRevocations(t *testing.T) {
	w := newWorld(t)
	ann, _, web := w.pair()
	revoked, _ := w.ca.Leaf(identity.Portal, "cy")
	w.tell("ann", wire.Revocation{Revocation: identity.Revocation{Epoch: 1, Key: identity.HashKey(revoked)}})
	w.tell("ann", wire.RevocationsComplete{Epoch: 1})
	w.wait("the revocation", func() bool { return ann.Status().Identity.Revocations == 1 })
	before := ann.credentials.Authorities()
	right := wire.Authorities{Version: 3, Certificates: [][]byte{w.ca.Certificate.Raw}}.Sign(w.policy)
	w.tell("ann", right)
	w.wait("the authorities that the policy key signed", func() bool { return ann.Status().Identity.Authorities == 3 })
	w.steal()

	other := identitytest.New(t)
	both := wire.Authorities{Version: 4, Certificates: [][]byte{w.ca.Certificate.Raw, other.Certificate.Raw}}
	altered := both
	altered.Signature = right.Signature
	for _, m := range []wire.Authorities{both.Sign(w.policy), both.Sign(w.stamp), both, altered} {
		w.tell("ann", m)
	}
	w.tell("ann", wire.RevocationsComplete{}) // none were ever
	w.wait("ann to notice that revocations are withheld", func() bool { return ann.Status().Identity.Regression != nil })
	if s := ann.Status().Identity; s.Authorities != 3 || s.Revocations != 1 {
		t.Errorf("authorities of version %d, revocations of epoch %d", s.Authorities, s.Revocations)
	}
	after := ann.credentials.Authorities()
	if len(before) != 1 || len(after) != 1 || !after[0].Equal(w.ca.Certificate) {
		t.Errorf("%d authorities before, %d after", len(before), len(after))
	}
	if err := ann.credentials.Recheck([]*x509.Certificate{revoked}); err == nil {
		t.Error("who was revoked counts again")
	}

	// It can take away what it cannot give.
	w.tell("ann", wire.RemoveGrant{Grant: web.ID(), Reason: wire.ReasonGrantRemoved})
	w.wait("the grant to end", func() bool { return len(ann.Status().Forwards) == 0 })
}

// TestStolenServerWithThePolicyKeyMeetsTheOwnersList: who has the policy key too grants
// what he likes, and nothing but the list of the exit's owner is left (T32). The exit's
// log names what was asked for, and by whom.
func TestStolenServerWithThePolicyKeyMeetsTheOwnersList(t *testing.T) {
	w := newWorld(t)
	var log lines
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	echo := w.echo("tcp", "127.0.0.1:0")
	catcher, caught := w.catcher()
	ann := w.portal("ann", "")
	w.portal("factory", "[dial]\nallow = [\"tcp://"+echo.Addr().String()+"\"]\n")
	listed := w.grant(w.permission("listed", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://"+echo.Addr().String()))
	other := w.grant(w.permission("other", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://127.0.0.1:"+strconv.Itoa(int(catcher))))
	shell := w.grant(w.permission("shell", "ann", "tcp://"+w.freePort("tcp"), "factory", "tcp://127.0.0.1:22"))
	ann.waitState("listed", Up)
	w.wait("the grants of the thief", func() bool { return len(ann.Status().Forwards) == 3 })
	if got, err := ask(w.dial("tcp", listed.Listen.HostPort()), "hello"); got != "hello" {
		t.Errorf("what the owner allows: %q, %v", got, err)
	}
	for _, g := range []grant.Grant{other, shell} {
		if conn, err := net.Dial("tcp", g.Listen.HostPort()); err == nil {
			if got, err := ask(conn, "hello"); err == nil {
				t.Errorf("what the owner does not allow answered %q", got)
			}
			conn.Close()
		}
		w.wait("factory's log to name what it refuses", func() bool {
			return log.has(`msg="refused to a peer" portal=factory`, "peer=ann", "grant="+g.ID().String(), "target="+g.Target.String(), wire.ReasonForbidden.String())
		})
		ann.wantConclusion(g.Forward, false, "It fails at factory", "[dial] list")
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d connections reached what the owner does not allow", n)
	}
}
