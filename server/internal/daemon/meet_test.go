package daemon

import (
	"crypto/ed25519"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/hub"
)

const web = "web: ann tcp://127.0.0.1:8080 -> plant tcp://10.0.0.5:80"

func TestPortalGetsItsGrantsAndMeetsItsPeer(t *testing.T) {
	r := newRig(t, "ann", "bo", "plant", "relay-1")
	r.apply(web, "bo: bo tcp://127.0.0.1:8080 -> plant tcp://10.0.0.6:80")
	relay := r.relay("relay-1")
	plant := r.portal("plant")
	grants, online := r.grants(plant, 2)
	if len(grants) != 2 || online["ann"] || online["bo"] {
		t.Errorf("plant has %v and sees %v", grants, online)
	}
	ann := r.portal("ann")
	if len(ann.hello.Stamp) != 1 || len(ann.hello.Stamp[0]) != ed25519.PublicKeySize {
		t.Errorf("stamp keys %v", ann.hello.Stamp)
	}
	mine, online := r.grants(ann, 1)
	g, ok := mine["web"]
	want := grant.Permission{
		Version: 1, Forward: "web",
		Entry: grant.Party{Name: "ann", Key: r.credentials["ann"].Key()}, Listen: endpoint.MustParse("tcp://127.0.0.1:8080"),
		Exit: grant.Party{Name: "plant", Key: r.credentials["plant"].Key()}, Target: endpoint.MustParse("tcp://10.0.0.5:80"),
	}
	want.Version = g.Version
	if !ok || len(mine) != 1 || g.Permission != want || !online["plant"] {
		t.Errorf("ann has %+v and sees %v", mine, online)
	}
	if m := next[wire.PeerState](plant); m.Name != "ann" || !m.Online {
		t.Errorf("plant is told %+v", m)
	}
	ann.conn.Send(wire.OpenSession{Request: 5, Peer: "plant", Grant: g.ID(), Transports: wire.TransportSplice})
	create := next[wire.CreateSession](relay)
	if create.Legs[0].Portal != "ann" || create.Legs[0].Source != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the relay is asked for %+v", create)
	}
	relay.conn.Send(wire.SessionReady{ID: create.ID, TCP: 20001})
	a, b := next[wire.Session](ann), next[wire.Session](plant)
	if a.Request != 5 || a.ID != create.ID || b.ID != create.ID || a.Secret != create.Legs[0].Secret || b.Secret != create.Legs[1].Secret {
		t.Errorf("told %+v and %+v", a, b)
	}
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	if a.Relay.Name != "relay-1" || !slices.Equal(a.Relay.Addresses, addresses) || a.Relay.TCP != 20001 {
		t.Errorf("sent to %+v, want the addresses that the operator gave", a.Relay)
	}
	ann.conn.Send(wire.SessionDone{Session: a.ID, Reason: wire.ReasonIdle})
	if m := next[wire.SessionEnded](plant); m.Session != a.ID || m.Reason != wire.ReasonIdle {
		t.Errorf("plant is told %+v", m)
	}
	if m := next[wire.EndSession](relay); m.ID != a.ID {
		t.Errorf("the relay is told %+v", m)
	}
	relay.conn.Send(wire.SessionOver{ID: a.ID, Reason: wire.ReasonIdle, Forth: 100, Back: 200})
	ended := r.records("end of the session", func(rec audit.Record) bool { return rec.Answer == audit.Ended })[0]
	if *ended.Session != a.ID || ended.Forth != 100 || ended.Back != 200 || ended.Forward != "web" || ended.Relay != "relay-1" {
		t.Errorf("record %+v", ended)
	}
	ann.leave()
	if m := next[wire.PeerState](plant); m.Name != "ann" || m.Online {
		t.Errorf("plant is told %+v", m)
	}
}

func TestChangedPolicyIsPushedAtOnce(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web, "ssh: ann tcp://127.0.0.1:2222 -> plant tcp://10.0.0.5:22")
	relay, plant, ann := r.relay("relay-1"), r.portal("plant"), r.portal("ann")
	before, _ := r.grants(ann, 1)
	r.grants(plant, 1)
	next[wire.PeerState](plant)
	ann.conn.Send(wire.OpenSession{Request: 1, Peer: "plant", Grant: before["ssh"].ID()})
	create := next[wire.CreateSession](relay)
	relay.conn.Send(wire.SessionReady{ID: create.ID, TCP: 20001})
	next[wire.Session](ann)
	next[wire.Session](plant)

	// One forward changes, one stays: its grant keeps its id.
	result := r.apply("web: ann tcp://127.0.0.1:8081 -> plant tcp://10.0.0.5:80", "ssh: ann tcp://127.0.0.1:2222 -> plant tcp://10.0.0.5:22")
	if result.Added != 1 || result.Removed != 1 || result.Unchanged != 1 {
		t.Errorf("applied %+v", result)
	}
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{plant, ann} {
		if m := next[wire.RemoveGrant](p); m.Grant != before["web"].ID() || m.Reason != wire.ReasonGrantRemoved {
			t.Errorf("%s: %+v", p.name, m)
		}
		if g := r.verify(next[wire.PutGrant](p)); g.Listen.Port() != 8081 || g.Version != result.Version {
			t.Errorf("%s: %+v", p.name, g)
		}
		if m := next[wire.PeerState](p); !m.Online {
			t.Errorf("%s: %+v", p.name, m)
		}
		if m := next[wire.GrantsComplete](p); m.Version != result.Version {
			t.Errorf("%s: version %d, want %d", p.name, m.Version, result.Version)
		}
	}

	// The last grant goes, and the session with it.
	result = r.apply()
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{plant, ann} {
		next[wire.RemoveGrant](p)
		next[wire.RemoveGrant](p)
		if m := next[wire.SessionEnded](p); m.Session != create.ID || m.Reason != wire.ReasonGrantRemoved {
			t.Errorf("%s: %+v", p.name, m)
		}
		next[wire.GrantsComplete](p)
	}
	if m := next[wire.EndSession](relay); m.ID != create.ID {
		t.Errorf("the relay is told %+v", m)
	}
	if result.Version != 4 { // the file of the configuration was the first
		t.Errorf("version %d, want 4", result.Version)
	}
}

// What is in force outlives the server, ids included.
func TestRestartKeepsGrantsAndTheirIDs(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	before, _ := r.grants(r.portal("ann"), 1)
	r.shutdown()
	r.start()
	after, _ := r.grants(r.portal("ann"), 1)
	if len(after) != 1 || after["web"].ID() != before["web"].ID() {
		t.Errorf("grants %v, want %v", after, before)
	}
}

// T9: the name in the certificate counts, whatever a message says; what is refused is in the audit log.
func TestOnlyTheHolderOfTheCertificateAndTheGrantGetsIn(t *testing.T) {
	r := newRig(t, "ann", "thief", "plant", "relay-1")
	r.apply(web)
	relay, plant := r.relay("relay-1"), r.portal("plant")
	grants, _ := r.grants(plant, 1)
	id := grants["web"].ID()
	ann, thief := r.portal("ann"), r.portal("thief")
	r.grants(ann, 1)
	r.grants(thief, 0)
	asked := []struct {
		from *peer[wire.ToPortal, wire.FromPortal]
		peer string
	}{{thief, "plant"}, {thief, "ann"}, {thief, "thief"}, {ann, "thief"}, {ann, "ann"}, {thief, "nobody"}}
	for _, c := range asked {
		c.from.conn.Send(wire.OpenSession{Request: 1, Peer: c.peer, Grant: id})
		if m := next[wire.Refused](c.from); m.Reason != wire.ReasonNotGranted || m.Text != "" {
			t.Errorf("%s to %s: %+v", c.from.name, c.peer, m)
		}
	}
	for _, c := range asked {
		refused := r.records("refusals", func(rec audit.Record) bool {
			return rec.Event == "session" && rec.Answer == audit.Refused && rec.Portal == c.from.name && rec.Peer == c.peer
		})
		if len(refused) != 1 || refused[0].Reason != "not granted" {
			t.Errorf("%s to %s: records %+v", c.from.name, c.peer, refused)
		}
	}
	ann.conn.Send(wire.OpenSession{Request: 2, Peer: "plant", Grant: id})
	if m := next[wire.CreateSession](relay); m.Legs[0].Portal != "ann" || m.Legs[1].Portal != "plant" {
		t.Errorf("the relay is asked for %+v", m)
	}
}

func TestNewestConnectionOfAnIdentityWins(t *testing.T) {
	r := newRig(t, "ann", "plant")
	r.apply(web)
	first := r.portal("ann")
	r.grants(first, 1)
	second := r.portal("ann")
	r.grants(second, 1)
	first.wantGoodbye(wire.ReasonReplaced)
	// A third within the same moments has to wait.
	third := r.portal("ann")
	third.wantGoodbye(wire.ReasonBusy)
	plant := r.portal("plant")
	if _, online := r.grants(plant, 1); !online["ann"] {
		t.Error("ann is not online")
	}
	if m := next[wire.PeerState](second); m.Name != "plant" || !m.Online {
		t.Errorf("the second connection is told %+v", m)
	}
}

func TestReplacedKeyIsWorthNothing(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	relay, plant, ann := r.relay("relay-1"), r.portal("plant"), r.portal("ann")
	old, _ := r.grants(plant, 1)
	r.grants(ann, 1)
	next[wire.PeerState](plant)
	ann.conn.Send(wire.OpenSession{Request: 1, Peer: "plant", Grant: old["web"].ID()})
	create := next[wire.CreateSession](relay)
	relay.conn.Send(wire.SessionReady{ID: create.ID, TCP: 20001})
	next[wire.Session](plant)
	stolen := r.credentials["ann"]
	r.issue("ann", true)
	ann.wantGoodbye(wire.ReasonRevoked)
	if m := next[wire.SessionEnded](plant); m.Reason != wire.ReasonRevoked {
		t.Errorf("plant is told %+v", m)
	}
	if m := next[wire.PeerState](plant); m.Name != "ann" || m.Online {
		t.Errorf("plant is told %+v", m)
	}
	if m := next[wire.RemoveGrant](plant); m.Grant != old["web"].ID() {
		t.Errorf("plant is told %+v", m)
	}
	if g := r.verify(next[wire.PutGrant](plant)); g.Entry.Key != r.credentials["ann"].Key() {
		t.Error("the new grant is not for the new key")
	}
	fresh := r.credentials["ann"]
	r.credentials["ann"] = stolen
	thief := connectRefused(r, "ann")
	if thief != wire.ReasonRevoked {
		t.Errorf("the old key is refused with %v, want %v", thief, wire.ReasonRevoked)
	}
	r.credentials["ann"] = fresh
	again := r.portal("ann")
	if g, _ := r.grants(again, 1); len(g) != 1 {
		t.Errorf("the new key has %d grants", len(g))
	}
}

// A server that has stopped has let go of everything it started.
func TestStopLeavesNothingRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	ann, relay := r.portal("ann"), r.relay("relay-1")
	r.grants(ann, 1)
	half := r.raw()
	half.Write([]byte{22})
	r.shutdown()
	ann.wantGoodbye(wire.ReasonShutdown)
	relay.wantGoodbye(wire.ReasonShutdown)
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; r.log.pause() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestPortalsAreToldWhetherThereIsARelay(t *testing.T) {
	r := newRig(t, "ann", "bo", "relay-1", "relay-2")
	ann := r.portal("ann")
	next[wire.GrantsComplete](ann)
	first := r.relay("relay-1")
	if m := next[wire.RelayState](ann); !m.Ready {
		t.Error("the first relay came, and ann was told that there is none")
	}
	second := r.relay("relay-2")
	bo := r.portal("bo")
	next[wire.GrantsComplete](bo)
	if m := next[wire.RelayState](bo); !m.Ready {
		t.Error("bo came after the relays, and was told that there is none")
	}
	first.conn.Close(wire.ReasonShutdown, "")
	r.until("relay-1 is gone", func() bool {
		var relays []hub.RelayView
		err := local.Call(t.Context(), r.cfg.Socket, CommandRelays, nil, &relays)
		return err == nil && !relays[0].Online && relays[1].Online
	})
	second.conn.Close(wire.ReasonShutdown, "")
	for _, p := range []*peer[wire.ToPortal, wire.FromPortal]{ann, bo} {
		if m := next[wire.RelayState](p); m.Ready {
			t.Errorf("%s: the last relay went, and it was told that there is one", p.name)
		}
	}
}

// T5.
func TestRelaysLearnWhereTheOthersAre(t *testing.T) {
	r := newRig(t, "relay-1", "relay-2")
	one := r.relay("relay-1")
	if m := next[wire.OtherRelays](one); m.More || len(m.Relays) != 0 {
		t.Errorf("the only relay is told %+v", m)
	}
	two := r.relay("relay-2")
	for _, p := range []*peer[wire.ToRelay, wire.FromRelay]{one, two} {
		m := next[wire.OtherRelays](p)
		if m.More || len(m.Relays) != 1 {
			t.Fatalf("%s is told %+v", p.name, m)
		}
		o := m.Relays[0]
		if !slices.Contains(o.Addresses, netip.MustParseAddr("192.0.2.7")) || o.First != 20000 || o.Last != 20999 || o.SharedTCP != 443 {
			t.Errorf("%s is told %+v", p.name, o)
		}
	}
}

func TestSessionsOfBeforeARestartAreShownAndEnd(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	relay, ann := r.relay("relay-1"), r.portal("ann")
	r.grants(ann, 1)
	held := wire.HeldSession{ID: wire.NewSessionID(), Portals: [2]string{"ann", "plant"}, Transports: wire.TransportPacket, Age: 3600}
	more := relayReady
	more.Sessions = []wire.HeldSession{held}
	relay.conn.Send(more)
	var list []broker.SessionView
	r.until("the session is shown", func() bool {
		err := local.Call(t.Context(), r.cfg.Socket, CommandSessions, nil, &list)
		return err == nil && len(list) > 0
	})
	if v := list[0]; v.ID != held.ID || v.Opener != "ann" || v.Peer != "plant" || v.State != "open" || time.Since(v.Since) < time.Hour {
		t.Errorf("session %+v", v)
	}
	r.apply() // nothing is allowed any more
	if m := next[wire.EndSession](relay); m.ID != held.ID || m.Reason != wire.ReasonGrantRemoved {
		t.Errorf("the relay is told %+v", m)
	}
	next[wire.RemoveGrant](ann)
	if m := next[wire.SessionEnded](ann); m.Session != held.ID {
		t.Errorf("ann is told %+v", m)
	}
	// The same is not taken up again.
	relay.conn.Send(more)
	relay.conn.Send(wire.SessionOver{ID: held.ID, Reason: wire.ReasonGrantRemoved, Forth: 5, Back: 6})
	relay.conn.Send(more)
	next[wire.EndSession](relay)
}
