package hub

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/ticketkey"
)

// offer is what relays offer here.
var offer = wire.RelayReady{
	First: 20000, Last: 20999, SharedTCP: 3478, SharedUDP: 3478, Capacity: 1000,
	Transports: wire.TransportSplice | wire.TransportPacket | wire.TransportUDP | wire.TransportTLS,
}

// scriptedRelay is the connection of a relay; it notes what it is told.
type scriptedRelay struct {
	w    *world
	name string
}

func (l scriptedRelay) Send(m wire.ToRelay) { l.w.sent = append(l.w.sent, sent{l.name, m, time.Now()}) }
func (l scriptedRelay) Close(r wire.Reason, text string) {
	l.w.sent = append(l.w.sent, sent{l.name, wire.Goodbye{Reason: r, Text: text}, time.Now()})
}
func (scriptedRelay) Probe() {}

// relay enrols a relay, connects it, and says what it offers.
func (w *world) relay(name string, offer wire.RelayReady) *connection[wire.ToRelay] {
	w.t.Helper()
	key := identity.KeyHash{0xff, name[len(name)-1]}
	if err := w.registry.PutRelay(registry.Relay{Name: name, Enrolment: registry.Enrolment{Key: key}}, true); err != nil {
		w.t.Fatal(err)
	}
	id, err := identity.New("example.org", identity.Relay, name)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &connection[wire.ToRelay]{
		link: scriptedRelay{w, name}, peer: identity.Peer{ID: id, Key: key, NotAfter: time.Now().AddDate(10, 0, 0)},
		address: netip.MustParseAddrPort("198.51.100.1:1"), since: time.Now(),
	}
	if reason, text := w.hub.enterRelay(c, []netip.Addr{netip.MustParseAddr("198.51.100.1")}); reason != wire.ReasonNone {
		w.t.Fatal(reason, text)
	}
	w.fromRelay(c, offer)
	return c
}

func (w *world) fromRelay(c *connection[wire.ToRelay], m wire.FromRelay) {
	w.t.Helper()
	if err := w.hub.fromRelay(w.t.Context(), c, m); err != nil {
		w.t.Fatal(err)
	}
}

// messages takes what was sent of one type since the last call, by receiver;
// all else is lost.
func messages[M wire.Message](w *world) map[string][]M {
	found := make(map[string][]M)
	for _, s := range w.sent {
		if m, ok := s.m.(M); ok {
			found[s.to] = append(found[s.to], m)
		}
	}
	w.sent = nil
	return found
}

// wantTickets takes the tickets that were sent since the last call: each named
// portal must have got those of these relays, and nobody else any.
func (w *world) wantTickets(what string, relays []string, portals ...string) map[string][]wire.Ticket {
	w.t.Helper()
	got := messages[wire.Ticket](w)
	for _, name := range portals {
		var names []string
		for _, m := range got[name] {
			names = append(names, m.Relay.Name)
		}
		if !slices.Equal(names, relays) {
			w.t.Errorf("%s: %s got tickets of %q, want %q", what, name, names, relays)
		}
	}
	for name := range got {
		if !slices.Contains(portals, name) {
			w.t.Errorf("%s: %s got %d tickets, want none", what, name, len(got[name]))
		}
	}
	return got
}

func TestTwoPortalsHoldTheHalvesOfOneTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann", "bo", "plant")
		w.apply(oneForward)
		w.relay("r1", offer)
		keys := messages[wire.TicketKeys](w)["r1"]
		if len(keys) != 1 {
			t.Fatalf("the relay was told of keys %d times", len(keys))
		}
		key := keys[0].Keys[0]
		for _, n := range []string{"plant", "bo", "ann"} {
			w.enter(n)
			w.run(3 * time.Hour) // another time, and the same ticket
		}
		got := messages[wire.Ticket](w) // bo shares no grant
		if len(got["ann"]) != 1 || len(got["plant"]) != 1 || len(got) != 2 {
			t.Fatalf("tickets %v", got)
		}
		id := ticket.Session(key, "ann", "plant", ticketkey.Ends(time.Now()))
		for i, n := range []string{"ann", "plant"} {
			want := wire.Ticket{
				Session: id, Leg: uint8(i), Secret: ticket.Secret(key, id, uint8(i)), Peer: []string{"plant", "ann"}[i],
				Relay:      wire.RelayAccess{Name: "r1", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}, SharedTCP: 3478, SharedUDP: 3478},
				Transports: wire.TransportSplice | wire.TransportUDP | wire.TransportTLS,
			}
			m := got[n][0]
			if fmt.Sprint(m) != fmt.Sprint(want) || m.Secret != want.Secret {
				t.Errorf("%s got %+v, want %+v", n, m, want)
			}
			if _, err := wire.ParseTicket(m.AppendTo(nil)); err != nil {
				t.Error(err)
			}
		}
		if ends, _ := ticket.Ends(id); !ends.After(time.Now()) {
			t.Errorf("the ticket ends at %v", ends)
		}
	})
}

func TestTicketsComeWithTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		w.enter("ann")
		w.enter("plant")
		w.run(time.Second)
		w.wantTickets("without a relay", nil)
		first := w.relay("r1", offer)
		w.run(time.Second)
		w.wantTickets("with the relay", []string{"r1"}, "ann", "plant")
		w.hub.leaveRelay(first)
		w.run(time.Minute)
		w.enter("ann")
		w.run(time.Second)
		w.wantTickets("the relay is away, and was there", []string{"r1"}, "ann")
		w.relay("r1", offer)
		w.run(time.Second)
		w.wantTickets("the relay is back", nil)
		moved := offer
		moved.SharedTCP, moved.SharedUDP = 443, 0
		w.hub.leaveRelay(w.hub.relays["r1"])
		w.relay("r1", moved)
		w.run(time.Second)
		got := w.wantTickets("on other ports", []string{"r1"}, "ann", "plant")
		if m := got["ann"][0]; m.Relay.SharedTCP != 443 || m.Transports != wire.TransportSplice|wire.TransportTLS {
			t.Errorf("ann got %+v", m)
		}
		none := offer
		none.SharedTCP, none.SharedUDP = 0, 0
		w.relay("r2", none)
		w.run(time.Second)
		w.wantTickets("of a relay without shared ports", nil)
		w.relay("r3", offer)
		w.run(time.Second)
		w.wantTickets("of one more", []string{"r1", "r3"}, "ann", "plant")
		w.run(time.Hour)
		w.wantTickets("no more", nil)
	})
}

// Twice a day, as the stamps; and a relay knows each key before portals have
// tickets of it.
func TestTicketsAreRenewedBeforeTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		w.relay("r1", offer)
		w.enter("ann")
		w.enter("plant")
		w.run(time.Minute)
		w.wantTickets("at first", []string{"r1"}, "ann", "plant")
		known := w.hub.keys.Of("r1", time.Now())
		const days = 8
		used := make(map[wire.Secret]bool)
		for day := range 2 * days {
			w.run(ticketkey.Grid)
			for _, s := range w.sent {
				switch m := s.m.(type) {
				case wire.TicketKeys:
					known = m.Keys
				case wire.Ticket:
					end, _ := ticket.Ends(m.Session)
					if left := end.Sub(s.at); left < grant.StampLife || left > ticketkey.Life {
						t.Fatalf("half day %d: a ticket for %v", day, left)
					}
					at := slices.IndexFunc(known, func(k wire.Secret) bool { return ticket.Secret(k, m.Session, m.Leg) == m.Secret })
					if at != 0 {
						t.Fatalf("half day %d: the ticket was made with key %d of the relay", day, at)
					}
					used[known[0]] = true
				}
			}
			got := w.wantTickets(fmt.Sprint("half day ", day), []string{"r1"}, "ann", "plant")
			if got["ann"][0].Session != got["plant"][0].Session {
				t.Fatalf("half day %d: two sessions", day)
			}
		}
		if len(used) != 2 {
			t.Errorf("%d keys in %d days, want 2", len(used), days)
		}
	})
}

func TestTicketsAreForTheThreeNearestRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		ann, _ := w.enter("ann")
		plant, _ := w.enter("plant")
		for _, n := range []string{"r1", "r2", "r3", "r4", "r5"} {
			w.relay(n, offer)
		}
		w.run(time.Second)
		w.wantTickets("unmeasured", []string{"r1", "r2", "r3"}, "ann", "plant")
		times := func(c *connection[wire.ToPortal], ms ...int) {
			var m wire.RelayTimes
			for i, t := range ms {
				m.Times = append(m.Times, wire.RelayTime{Relay: fmt.Sprint("r", i+1), Time: time.Duration(t) * time.Millisecond})
			}
			if err := w.hub.fromPortal(w.t.Context(), c, m); err != nil {
				t.Fatal(err)
			}
			w.run(time.Second)
		}
		times(ann, 50, 40, 30, 20, 10)
		w.wantTickets("measured by one", nil)
		times(plant, 50, 40, 30, 0, 10)
		w.wantTickets("measured by both", []string{"r5", "r3", "r2"}, "ann", "plant")
		times(plant, 1, 1, 1, 1, 1)
		w.wantTickets("measured again", nil)
		w.enter("plant")
		w.run(time.Second)
		w.wantTickets("of one that connects anew, as the other has them", []string{"r5", "r3", "r2"}, "plant")
		w.run(ticketkey.Grid + time.Minute)
		w.wantTickets("when they are renewed: plant knows nothing now, so by what ann knows", []string{"r5", "r4", "r3"}, "ann", "plant")
	})
}

func TestTicketsFollowThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := joined(t)
		w.enter("ann")
		w.enter("plant")
		w.relay("r1", offer)
		w.relay("r2", offer)
		w.run(time.Second)
		w.wantTickets("of any relay", []string{"r1", "r2"}, "ann", "plant")
		w.apply(oneForward + "relay = \"r2\"\n")
		w.run(time.Second)
		w.wantTickets("of the one that the policy wants", []string{"r2"}, "ann", "plant")
		w.apply(oneForward)
		w.run(time.Second)
		w.wantTickets("of any again", []string{"r1", "r2"}, "ann", "plant")
		w.apply(`domain = "example.org"` + "\n")
		w.run(ticketkey.Grid + time.Minute)
		w.wantTickets("without a grant", nil)
		if len(w.hub.tickets.standing) > 0 {
			t.Error("a pair without a grant is remembered")
		}
		w.apply(oneForward)
		w.run(time.Second)
		w.wantTickets("with a grant again", []string{"r1", "r2"}, "ann", "plant")
	})
}

// F10: who is owed very many tickets, or all at once, gets them by and by.
func TestTicketsAreMadeAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = ticketPairs + 200
		var names []string
		var text strings.Builder
		text.WriteString("domain = \"example.org\"\n[groups]\nall = [")
		for i := range peers {
			names = append(names, fmt.Sprintf("p%d", i))
			fmt.Fprintf(&text, "%q, ", names[i])
		}
		text.WriteString("]\n[[forward]]\nname = \"web\"\nfrom = \"all tcp://127.0.0.1:80\"\nto = \"plant tcp://10.0.0.5:80\"\n")
		w := newWorld(t, "plant")
		w.enrol(names...)
		w.apply(text.String())
		for _, r := range []string{"r1", "r2", "r3"} {
			w.relay(r, offer)
		}
		plant, _ := w.enter("plant")
		start := time.Now()
		w.sent = nil
		w.run(time.Second)
		at := make(map[time.Duration]int)
		for _, s := range w.sent {
			if _, ok := s.m.(wire.Ticket); ok {
				at[s.at.Sub(start)]++
			}
		}
		if len(at) != 2 {
			t.Errorf("tickets came at %v", slices.Sorted(maps.Keys(at)))
		}
		all := 0
		for when, n := range at {
			if all += n; n > ticketPairs*maxTickets {
				t.Errorf("%d tickets at once, after %v", n, when)
			}
		}
		if all != peers*maxTickets {
			t.Errorf("%d tickets, want %d", all, peers*maxTickets)
		}
		w.sent = nil
		w.hub.leavePortal(plant)
		w.run(time.Second)
		if n := len(w.hub.tickets.order) + len(w.hub.tickets.owed); n != 0 {
			t.Errorf("%d pairs wait", n)
		}
	})
}

func TestPortalsAreToldOfServersAndRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann", "bo")
		w.hub.servers = []string{"netport.example.org", "192.0.2.1:443"}
		ann, _ := w.enter("ann")
		if m := messages[wire.Servers](w)["ann"]; len(m) != 1 || !slices.Equal(m[0].Addresses, w.hub.servers) {
			t.Errorf("ann is told of servers %v", m)
		}
		places := func(what string, want map[string][]string) {
			t.Helper()
			w.run(2 * time.Second)
			got := make(map[string][]string)
			for name, list := range messages[wire.Relays](w) {
				for _, p := range list[len(list)-1].Relays {
					got[name] = append(got[name], fmt.Sprintf("%s %s:%d", p.Name, p.Addresses[0], p.Port))
				}
				if len(list) > 1 {
					t.Errorf("%s: %s is told %d times", what, name, len(list))
				}
				if len(got[name]) == 0 {
					got[name] = []string{}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: told %v, want %v", what, got, want)
			}
		}
		places("without a relay", nil)
		r1, r2 := w.relay("r1", offer), w.relay("r2", offer)
		both := []string{"r1 198.51.100.1:3478", "r2 198.51.100.1:3478"}
		places("two at once", map[string][]string{"ann": both})
		w.enter("bo")
		places("who comes later", map[string][]string{"bo": both})
		w.fromRelay(r1, wire.RelayDraining{Reason: wire.ReasonShutdown})
		places("one drains", map[string][]string{"ann": both[1:], "bo": both[1:]})
		w.hub.leavePortal(ann)
		w.hub.leaveRelay(r2)
		places("one goes", map[string][]string{"bo": {}})
	})
}

// A relay that drains is none that could hold a session.
func TestRelayThatDrainsIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "ann")
		r := w.relay("r1", offer)
		w.enter("ann")
		w.fromRelay(r, wire.RelayDraining{Reason: wire.ReasonShutdown})
		m := messages[wire.RelayState](w)["ann"]
		if len(m) != 2 || !m[0].Ready || m[1].Ready {
			t.Errorf("ann is told %+v, want one and then none", m)
		}
		if v := w.hub.Relays()[0]; !v.State.Draining {
			t.Errorf("the operator is shown %+v", v.State)
		}
	})
}
