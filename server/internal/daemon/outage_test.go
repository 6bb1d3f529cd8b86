package daemon

import (
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/hub"
)

// F41, the server's part: the session of a relay that drains moves to another,
// which both portals are told, and the relay is rid of it when one has moved.
func TestSessionMovesOffARelayThatDrains(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1", "relay-2")
	r.apply(web)
	first, ann, plant := r.relay("relay-1"), r.portal("ann"), r.portal("plant")
	grants, _ := r.grants(ann, 1)
	r.grants(plant, 1)
	next[wire.PeerState](ann)
	ann.conn.Send(wire.OpenSession{Request: 1, Peer: "plant", Grant: grants["web"].ID(), Transports: wire.TransportSplice})
	old := next[wire.CreateSession](first).ID
	first.conn.Send(wire.SessionReady{ID: old, TCP: 20001})
	next[wire.Session](ann)
	next[wire.Session](plant)
	second := r.relay("relay-2")
	first.conn.Send(wire.RelayDraining{Reason: wire.ReasonShutdown})
	create := next[wire.CreateSession](second)
	second.conn.Send(wire.SessionReady{ID: create.ID, TCP: 20001})
	for i, p := range []*peer[wire.ToPortal, wire.FromPortal]{ann, plant} {
		m := next[wire.Session](p)
		if m.ID != create.ID || m.Replaces != old || m.Request != 0 || m.Relay.Name != "relay-2" || m.Secret != create.Legs[i].Secret {
			t.Errorf("%s is told %+v", p.name, m)
		}
	}
	var relays []hub.RelayView
	var sessions []broker.SessionView
	r.ask(CommandRelays, &relays)
	r.ask(CommandSessions, &sessions)
	if !relays[0].State.Draining || relays[1].State.Draining || len(sessions) != 2 {
		t.Errorf("the operator is shown %+v and %+v", relays, sessions)
	}
	ann.conn.Send(wire.SessionDone{Session: old, Reason: wire.ReasonReplaced})
	if m := next[wire.EndSession](first); m.ID != old {
		t.Errorf("the relay is told %+v", m)
	}
	if m := next[wire.SessionEnded](plant); m.Session != old || m.Reason != wire.ReasonReplaced {
		t.Errorf("plant is told %+v", m)
	}
}

func (r *rig) ask(request string, answer any) {
	r.t.Helper()
	if err := local.Call(r.t.Context(), r.cfg.Socket, request, nil, answer); err != nil {
		r.t.Fatal(err)
	}
}

func TestRoundTripsOfBothPortalsChooseTheRelay(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1", "relay-2")
	r.apply(web)
	r.relay("relay-1")
	near, ann, plant := r.relay("relay-2"), r.portal("ann"), r.portal("plant")
	grants, _ := r.grants(ann, 1)
	r.grants(plant, 1)
	next[wire.PeerState](ann)
	// Each measures where it is told to.
	for i, p := range []*peer[wire.ToPortal, wire.FromPortal]{ann, plant} {
		var m wire.Relays
		for len(m.Relays) < 2 {
			m = next[wire.Relays](p)
		}
		var times wire.RelayTimes
		for _, place := range m.Relays {
			trip := 10 * time.Millisecond
			if place.Port != relayReady.SharedTCP || len(place.Addresses) != 2 {
				t.Errorf("%s is sent to %+v", p.name, place)
			}
			if place.Name == "relay-1" {
				trip = time.Duration(9+20*i) * time.Millisecond // nearer to ann alone
			}
			times.Times = append(times.Times, wire.RelayTime{Relay: place.Name, Time: trip})
		}
		p.conn.Send(times)
	}
	r.until("both have measured", func() bool {
		var relays []hub.RelayView
		r.ask(CommandRelays, &relays)
		return relays[1].State != nil && relays[1].State.Measured == 2
	})
	ann.conn.Send(wire.OpenSession{Request: 1, Peer: "plant", Grant: grants["web"].ID(), Transports: wire.TransportSplice})
	next[wire.CreateSession](near)
	var sessions []broker.SessionView
	r.ask(CommandSessions, &sessions)
	if len(sessions) != 1 || sessions[0].RoundTrips != [2]broker.Milliseconds{10, 10} {
		t.Errorf("the operator is shown %+v", sessions)
	}
}

// What portals and relays need when the server is away, and the same after a
// restart: portals that were told before and after must still meet.
func TestTicketsOutliveTheServer(t *testing.T) {
	r := newRig(t, "ann", "plant", "relay-1")
	r.apply(web)
	told := func() (keys []wire.Secret, ticket wire.Ticket) {
		relay := r.relay("relay-1")
		keys = next[wire.TicketKeys](relay).Keys
		ann := r.portal("ann")
		r.grants(ann, 1)
		if m := next[wire.Servers](ann); !slices.Equal(m.Addresses, []string{r.cfg.Address}) {
			t.Errorf("ann is told of servers %q", m.Addresses)
		}
		return keys, next[wire.Ticket](ann)
	}
	keys, before := told()
	if before.Peer != "plant" || before.Relay.Name != "relay-1" || before.Relay.SharedTCP != relayReady.SharedTCP || before.Transports != wire.TransportSplice {
		t.Errorf("ann got %+v", before)
	}
	r.shutdown()
	r.start()
	again, after := told()
	if !slices.Equal(keys, again) {
		t.Error("the relay's keys changed with a restart")
	}
	if before.Session != after.Session || before.Secret != after.Secret {
		t.Errorf("the ticket changed with a restart: %v and %v", before.Session, after.Session)
	}
}

// F11: the policy was changed while the server was down.
func TestRestartWithAnotherPolicyEndsWhatItForbids(t *testing.T) {
	r := newRig(t, "ann", "bo", "plant", "relay-1")
	r.apply(web, "bo: bo tcp://127.0.0.1:8080 -> plant tcp://10.0.0.6:80")
	r.shutdown()
	r.applyStopped("bo: bo tcp://127.0.0.1:8080 -> plant tcp://10.0.0.6:80")
	r.start()
	allowed := wire.HeldSession{ID: wire.NewSessionID(), Portals: [2]string{"bo", "plant"}, Transports: wire.TransportSplice, Age: 60}
	forbidden := wire.HeldSession{ID: wire.NewSessionID(), Portals: [2]string{"ann", "plant"}, Transports: wire.TransportSplice, Age: 60}
	relay, ann := r.relay("relay-1"), r.portal("ann")
	more := relayReady
	more.Sessions = []wire.HeldSession{allowed, forbidden}
	relay.conn.Send(more)
	if m := next[wire.EndSession](relay); m.ID != forbidden.ID || m.Reason != wire.ReasonGrantRemoved {
		t.Errorf("the relay is told %+v", m)
	}
	if grants, _ := r.grants(ann, 0); len(grants) != 0 {
		t.Errorf("ann is put %v", grants)
	}
	var sessions []broker.SessionView
	r.ask(CommandSessions, &sessions)
	if len(sessions) != 1 || sessions[0].ID != allowed.ID {
		t.Errorf("sessions %+v, want that of bo", sessions)
	}
}
