package hub

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/store"
	"github.com/netport/netport/server/internal/ticketkey"
)

// world is a hub whose connections are scripted and whose time is that of a
// synctest bubble.
type world struct {
	t        *testing.T
	hub      *Hub
	registry *registry.Registry
	sent     []sent // to all, in order
	stamp    ed25519.PublicKey
	policy   ed25519.PublicKey
}

type sent struct {
	to string
	m  wire.Message
	at time.Time
}

func newWorld(t *testing.T, portals ...string) *world {
	t.Helper()
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := store.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	policyKey, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open("example.org", s, signer, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stampKey, stamp, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	w := &world{t: t, registry: r, stamp: stampKey, policy: policyKey}
	keys, err := ticketkey.Open(s, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.hub = New(Options{Registry: r, Identities: w, Stamp: stamp, Audit: audit.New(t.TempDir(), log), Log: log, Tickets: keys, MaxSessions: 10})
	w.enrol(portals...)
	return w
}

// enrol enrols portals. Their keys are their names.
func (w *world) enrol(names ...string) {
	w.t.Helper()
	for _, n := range names {
		var key identity.KeyHash
		copy(key[:], n)
		if _, err := w.registry.PutPortal(registry.Portal{Name: n, Enrolment: registry.Enrolment{Key: key}}, false); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) apply(text string) {
	w.t.Helper()
	p, err := policy.Parse("policy.toml", []byte(text), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := w.registry.Apply(p, "policy.toml", []byte(text), false)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hub.Changed(d)
}

// The world is the hub's Identities too: nobody's changes here.

func (w *world) Authorities() wire.Authorities {
	return wire.Authorities{Version: 1, Certificates: [][]byte{{1}}}
}
func (w *world) AdmitElsewhere(identity.Peer) error { return nil }
func (w *world) Settle(identity.Peer) error         { return nil }
func (w *world) Renew(context.Context, identity.Peer, []byte) ([]*x509.Certificate, error) {
	return nil, &enrol.Refusal{Reason: wire.ReasonNotGranted, Text: "not here"}
}

// run runs the hub for the time d of the bubble, and lets it do all that is due
// at the end of it.
func (w *world) run(d time.Duration) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.hub.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	<-time.After(d)
	synctest.Wait()
	cancel()
	running.Wait()
}

// scripted is a connection that notes what it is told.
type scripted struct {
	w    *world
	name string
}

func (l scripted) Send(m wire.ToPortal) {
	if _, ok := m.(wire.Authorities); !ok { // which all get, always the same
		l.w.sent = append(l.w.sent, sent{l.name, m, time.Now()})
	}
}
func (l scripted) Close(r wire.Reason, text string) {
	l.w.sent = append(l.w.sent, sent{l.name, wire.Goodbye{Reason: r, Text: text}, time.Now()})
}
func (l scripted) Probe() { l.w.sent = append(l.w.sent, sent{l.name, wire.Ping{}, time.Now()}) }

// enter connects a portal whose certificate ends much later.
func (w *world) enter(name string) (*connection[wire.ToPortal], wire.Reason) {
	w.t.Helper()
	return w.enterUntil(name, time.Now().AddDate(10, 0, 0))
}

// enterUntil connects a portal with a certificate that ends then.
func (w *world) enterUntil(name string, ends time.Time) (*connection[wire.ToPortal], wire.Reason) {
	w.t.Helper()
	p, ok := w.registry.Portal(name)
	if !ok {
		w.t.Fatalf("%s is not enrolled", name)
	}
	id, err := identity.New("example.org", identity.Portal, name)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &connection[wire.ToPortal]{
		link: scripted{w, name}, peer: identity.Peer{ID: id, Key: p.Key, NotAfter: ends},
		address: netip.MustParseAddrPort("192.0.2.1:1"), since: time.Now(), until: make(map[wire.GrantID]time.Time),
	}
	reason, _ := w.hub.enterPortal(c)
	return c, reason
}

// take returns what was sent since the last call, as short words.
func (w *world) take() []string {
	var list []string
	for _, s := range w.sent {
		word := fmt.Sprintf("%s: %T", s.to, s.m)
		switch m := s.m.(type) {
		case wire.PutGrant:
			g, err := grant.Parse(m.Grant)
			if err != nil {
				w.t.Fatal(err)
			}
			if r := g.Verify(grant.Keys{Policy: []ed25519.PublicKey{w.policy}, Stamp: []ed25519.PublicKey{w.stamp}}); r != wire.ReasonNone {
				w.t.Errorf("grant %s: %v", g.Forward, r)
			}
			if r := g.Valid(s.at); r != wire.ReasonNone {
				w.t.Errorf("grant %s: %v", g.Forward, r)
			}
			word = fmt.Sprintf("%s: put %s for %v", s.to, g.Forward, g.Until.Sub(s.at).Round(time.Hour))
		case wire.RemoveGrant:
			word = fmt.Sprintf("%s: remove, %v", s.to, m.Reason)
		case wire.GrantsComplete:
			word = fmt.Sprintf("%s: complete %d", s.to, m.Version)
		case wire.PeerState:
			word = fmt.Sprintf("%s: %s %t", s.to, m.Name, m.Online)
		case wire.Goodbye:
			word = fmt.Sprintf("%s: goodbye, %v", s.to, m.Reason)
		}
		list = append(list, word)
	}
	w.sent = nil
	return list
}

func (w *world) want(what string, want ...string) {
	w.t.Helper()
	got := w.take()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

const oneForward = `domain = "example.org"
[[forward]]
name = "web"
from = "ann tcp://127.0.0.1:80"
to = "plant tcp://10.0.0.5:80"
`

// joined returns a world in which ann and plant share a forward.
func joined(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, "ann", "plant")
	w.apply(oneForward)
	return w
}

func TestGrantsAreStampedAnewAtHalfTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		w.enter("ann")
		w.want("on connecting", "ann: put web for 24h0m0s", "ann: complete 1", "ann: plant false")
		w.run(11 * time.Hour)
		w.want("before half the life")
		w.enter("plant")
		w.want("the other, later", "plant: put web for 13h0m0s", "plant: complete 1", "plant: ann true", "ann: plant true")
		w.run(time.Hour + time.Minute)
		got := w.take()
		if len(got) != 2 || got[0] == got[1] {
			t.Errorf("after half the life: %q, want the grant once for each", got)
		}
		w.run(48 * time.Hour)
		if n := len(w.take()); n != 6 {
			t.Errorf("in two days: %d grants, want the grant three times for each", n)
		}
	})
}

// F10: what was stamped in one moment is not stamped anew in one moment.
func TestStampsAreRenewedAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const forwards = maxRestamps + 500
		w := newWorld(t, "ann", "plant")
		var text strings.Builder
		text.WriteString("domain = \"example.org\"\n")
		for i := range forwards {
			fmt.Fprintf(&text, "[[forward]]\nname = \"f%d\"\nfrom = \"ann tcp://127.0.0.1:%d\"\nto = \"plant tcp://10.0.0.5:80\"\n", i, i+1)
		}
		w.apply(text.String())
		w.enter("ann")
		w.sent = nil
		w.run(12 * time.Hour)
		for look, want := range []int{maxRestamps, forwards - maxRestamps, 0} {
			w.run(careTime)
			if n := len(messages[wire.PutGrant](w)["ann"]); n != want {
				t.Errorf("look %d after half the life: %d grants were sent, want %d", look, n, want)
			}
		}
	})
}

func TestGrantThatEndsIsTakenBackFromTheExitFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann", "plant")
		until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		w.apply(oneForward + "until = " + until + "\n")
		w.enter("ann")
		w.enter("plant")
		w.take()
		w.run(59 * time.Minute)
		w.want("before its end")
		w.run(2 * time.Minute)
		w.want("after its end", "plant: remove, grant expired", "ann: remove, grant expired")
		w.run(time.Hour)
		w.want("once is enough")
		w.enter("plant")
		w.want("on connecting anew", "plant: goodbye, replaced by a newer connection", "plant: complete 1")
	})
}

func TestRemovedGrantsReachTheExitFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		w.enter("ann")
		w.enter("plant")
		w.take()
		w.apply(`domain = "example.org"` + "\n")
		got := w.take()
		want := []string{"plant: remove, grant removed", "ann: remove, grant removed"}
		if len(got) != 4 || fmt.Sprint(got[:2]) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q and then the version for both", got, want)
		}
	})
}

// F46: a connection does not outlive its certificate.
func TestConnectionEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann")
		w.enterUntil("ann", time.Now().Add(time.Hour))
		w.take()
		w.run(time.Hour - time.Second)
		w.want("before its end")
		w.run(time.Minute)
		got := w.take()
		if len(got) == 0 || got[0] != "ann: goodbye, revoked" {
			t.Errorf("after its end: %q", got)
		}
	})
}

// What the older connection still says does not count, nor does its end.
func TestReplacedConnectionIsPowerless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		old, _ := w.enter("ann")
		w.enter("ann")
		w.take()
		if err := w.hub.fromPortal(t.Context(), old, wire.OpenSession{Request: 1, Peer: "plant"}); err != nil {
			t.Error(err)
		}
		w.hub.leavePortal(old)
		w.want("of the older connection")
		if p := w.hub.Portals(); !p[0].Online {
			t.Error("the newer connection is gone with the older one")
		}
	})
}
