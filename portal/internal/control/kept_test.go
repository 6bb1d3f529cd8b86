package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/address/addresstest"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// ticketFor is one of ann with a peer at a relay.
func ticketFor(peer, relay string, ends time.Time) wire.Ticket {
	return wire.Ticket{
		Session: ticket.Session(wire.Secret{1}, "ann", peer, ends), Secret: wire.Secret{2}, Peer: peer, Transports: wire.TransportSplice,
		Relay: wire.RelayAccess{Name: relay, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, SharedTCP: 443},
	}
}

func TestTicketsAreForPeersOfGrantsAndEnd(t *testing.T) {
	s := newScript(t)
	day := time.Now().Add(24 * time.Hour)
	s.give("factory")
	s.conn.Send(ticketFor("factory", "relay-1", day))
	s.conn.Send(ticketFor("factory", "relay-1", day.Add(time.Hour)))
	s.conn.Send(ticketFor("factory", "relay-2", day))
	s.conn.Send(ticketFor("factory", "relay-3", time.Now().Add(-time.Second)))
	s.conn.Send(ticketFor("stranger", "relay-1", day))
	random := ticketFor("factory", "relay-4", day)
	random.Session = wire.SessionID{9}
	s.conn.Send(random)
	s.settled()
	tickets := s.client.Tickets()
	if got := tickets.Peers(); !slices.Equal(got, []string{"factory"}) {
		t.Errorf("tickets with %q", got)
	}
	got := tickets.For("factory")
	if len(got) != 2 || got[0].Relay.Name != "relay-1" || got[0].Session != ticketFor("factory", "relay-1", day.Add(time.Hour)).Session || got[1].Relay.Name != "relay-2" {
		t.Errorf("tickets %+v, want the newer one of relay-1 and that of relay-2", got)
	}
	if got := tickets.For("stranger"); len(got) != 0 {
		t.Errorf("a ticket with whom no grant joins: %+v", got)
	}
	s.conn.Send(wire.GrantsComplete{Version: 1}.Sign(s.policy))
	s.settled()
	var kept state.Kept
	s.client.Keep(&kept)
	if len(kept.Tickets) != 2 {
		t.Errorf("%d tickets are kept once the grants are complete, want 2", len(kept.Tickets))
	}
}

func TestTicketsAreBounded(t *testing.T) {
	now := time.Now()
	all := newTickets(now, nil)
	for peer := range maxTicketPeers + 10 {
		for relay := range maxTicketRelays + 2 {
			all.put(now, ticketFor(fmt.Sprintf("p%d", peer), fmt.Sprintf("r%d", relay), now.Add(time.Hour)))
		}
	}
	if got := len(all.all(now)); got != maxTicketPeers*maxTicketRelays {
		t.Errorf("%d tickets, want %d", got, maxTicketPeers*maxTicketRelays)
	}
	if got := len(all.all(now.Add(time.Hour))); got != 0 {
		t.Errorf("%d tickets that are over", got)
	}
	// What is over makes room.
	if later := now.Add(time.Hour); !all.put(later, ticketFor("p1", "r9", later.Add(time.Hour))) {
		t.Error("no room for a new ticket in the place of one that is over")
	}
}

// What a Client keeps is what the next one begins with.
func TestClientGoesOnFromWhatWasKept(t *testing.T) {
	s := newScript(t)
	day := time.Now().Add(24 * time.Hour)
	before := s.kept.Load()
	s.give("factory")
	s.conn.Send(ticketFor("factory", "relay-1", day))
	s.conn.Send(wire.Servers{Addresses: []string{"other.example:8443", "not a server", "192.0.2.7"}})
	s.settled()
	if s.kept.Load() < before+3 {
		t.Errorf("%d changes were told of, want one of each message", s.kept.Load()-before)
	}
	s.client.NetworkChanged("wifi")
	s.client.mu.Lock()
	s.client.networks.list[0].pauses = wirecontrol.NewPauses(wirecontrol.Learned{Held: 9 * time.Minute}, func() {})
	s.client.mu.Unlock()
	var kept state.Kept
	s.client.Keep(&kept)
	kept.Grants = state.Grants{Completed: wire.GrantsComplete{Version: 8}, Known: true}
	again := New(Config{Credentials: someone(t), Servers: []string{"first.example"}, Grants: s.keeper, Kept: kept, Changed: func() {}, Log: s.client.Log})
	if got := again.Tickets().For("factory"); len(got) != 1 {
		t.Errorf("tickets %+v", got)
	}
	want := []string{"first.example:443", "first.example:80", "other.example:8443", "192.0.2.7:443", "192.0.2.7:80"}
	if got := again.Status().Servers; !slices.Equal(got, want) {
		t.Errorf("servers %q, want %q", got, want)
	}
	if got := again.Status().Policy; got != 8 {
		t.Errorf("policy version %d, want that of what was kept", got)
	}
	again.NetworkChanged("wifi")
	if got := again.pauses().Learned().Held; got != 9*time.Minute {
		t.Errorf("knows a silence of %v of its network", got)
	}
	again.NetworkChanged("lte")
	if got := again.pauses().Learned().Held; got != 0 {
		t.Errorf("knows a silence of %v of a network that is new", got)
	}
}

func TestNetworksAreBounded(t *testing.T) {
	n := newNetworks(nil, func() {})
	for i := range 10 * maxNetworks {
		n.enter(fmt.Sprint("net", i))
	}
	if len(n.list) != maxNetworks {
		t.Errorf("%d networks are remembered, want %d", len(n.list), maxNetworks)
	}
}

// TestHalfOpenConnectionIsNoticedWhenTheNetworkChanges: nobody would notice it
// for minutes.
func TestHalfOpenConnectionIsNoticedWhenTheNetworkChanges(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.lose.Store(true)
	begin := time.Now()
	s.client.NetworkChanged("")
	s.connected()
	if took := time.Since(begin); took < wirecontrol.ProbeTimeout || took > wirecontrol.ProbeTimeout+time.Second {
		t.Errorf("connected again after %v, want %v and a moment", took, wirecontrol.ProbeTimeout)
	}
}

func TestAddressThatIsGoneIsNoticed(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": false, "192.0.2.77": true, "2001:db8::77": true} {
		if got := away(&net.TCPAddr{IP: net.ParseIP(address)}); got != want {
			t.Errorf("%s: away %t, want %t", address, got, want)
		}
	}
}

func places(names ...string) (list []wire.RelayPlace) {
	for _, n := range names {
		list = append(list, wire.RelayPlace{Name: n, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Port: 443})
	}
	return list
}

// TestServerIsToldOfRoundTrips once they are measured, and then when one has
// changed by what matters.
func TestServerIsToldOfRoundTrips(t *testing.T) {
	s := newScript(t)
	s.trips.Store("a", 20*time.Millisecond)
	s.trips.Store("b", 200*time.Microsecond)
	s.conn.Send(wire.Relays{Relays: places("a", "b", "dead")})
	s.settled()
	want := func(what string, times ...wire.RelayTime) {
		t.Helper()
		s.client.measureNow(t.Context())
		if times == nil {
			s.settled() // fails if RelayTimes came first
			return
		}
		if m, ok := (<-s.asked).(wire.RelayTimes); !ok || !slices.Equal(m.Times, times) {
			t.Errorf("%s: the server was told %+v, want %+v", what, m, times)
		}
	}
	a, b, dead := wire.RelayTime{Relay: "a", Time: 20 * time.Millisecond}, wire.RelayTime{Relay: "b", Time: 200 * time.Microsecond}, wire.RelayTime{Relay: "dead"}
	want("first", a, b, dead)
	s.trips.Store("a", 21*time.Millisecond)  // 5 %
	s.trips.Store("b", 900*time.Microsecond) // 0.7 ms
	want("hardly another")
	s.trips.Store("a", 23*time.Millisecond)
	a.Time, b.Time = 23*time.Millisecond, 900*time.Microsecond
	want("a slower one", a, b, dead)
	s.trips.Store("dead", 3*time.Millisecond)
	dead.Time = 3 * time.Millisecond
	want("one that answers again", a, b, dead)

	// A server that is connected anew is told at once what is known already.
	s.conn.Close(wire.ReasonShutdown, "")
	s.connected()
	s.conn.Send(wire.Relays{Relays: places("a", "b", "dead")})
	if m, ok := (<-s.asked).(wire.RelayTimes); !ok || !slices.Equal(m.Times, []wire.RelayTime{a, b, dead}) {
		t.Errorf("the next connection: told %+v", m)
	}
}

func TestRelaysAreMeasuredSeldom(t *testing.T) {
	now := time.Now()
	m := newTimes()
	if got := m.relays(now, places("a")); got != nil || !m.due.IsZero() {
		t.Errorf("one relay alone: %v, measured at %v", got, m.due)
	}
	list := places("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
	if m.relays(now, list); m.due.Before(now) || m.due.After(now.Add(measureSoon)) {
		t.Errorf("measured at first after %v", m.due.Sub(now))
	}
	if got := m.choose(); len(got) != len(list) {
		t.Errorf("%d are measured at first, want all", len(got))
	}
	took := make([]time.Duration, len(list))
	for i := range took {
		took[i] = time.Duration(i) * time.Millisecond // the first does not answer
	}
	m.took(now, list, took)
	if after := m.due.Sub(now); after < measureEvery*9/10 || after > measureEvery*11/10 {
		t.Errorf("measured again after %v", after)
	}
	got := m.choose()
	if len(got) != nearest+chance || got[0].Name != "b" || got[nearest-1].Name != "e" {
		t.Errorf("then: %+v", got)
	}
	m.moved()
	if m.due.After(time.Now().Add(measureSoon)) || len(m.choose()) != len(list) {
		t.Errorf("in another network: after %v, %d relays", time.Until(m.due), len(m.choose()))
	}
}

// someone is a portal whose certificate nobody looks at.
func someone(t *testing.T) *identity.Credentials {
	return identitytest.New(t).Credentials(identity.Portal, "ann")
}

// Before a server is reached, ways to relays are judged by where it was last.
func TestServerWasWhereItIsLookedFor(t *testing.T) {
	host := wirecontrol.Host{Name: "netport.example.org", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	for _, test := range []struct {
		kept    []wirecontrol.Host
		servers []string
		want    string
	}{
		{[]wirecontrol.Host{host}, []string{"10.0.0.1:443"}, "192.0.2.1:0"},
		{nil, []string{"netport.example.org", "10.0.0.1:443"}, "10.0.0.1:0"},
		{nil, []string{"[fd00::1]"}, "[fd00::1]:0"},
		{nil, []string{"netport.example.org"}, "invalid AddrPort"},
	} {
		c := New(Config{Credentials: someone(t), Servers: test.servers, Kept: state.Kept{Hosts: test.kept}, Changed: func() {}})
		if got := c.Server().String(); got != test.want {
			t.Errorf("servers %q, kept %v: %s, want %s", test.servers, test.kept, got, test.want)
		}
	}
}

// G7: no server leads a portal to these by the name of another server; one on this machine may name
// another on it.
func TestForbiddenAddressesAreNoServers(t *testing.T) {
	for _, teller := range []string{"192.0.2.1", "10.0.0.1", "127.0.0.1"} {
		c := New(Config{Credentials: someone(t), Changed: func() {}})
		c.address = netip.AddrPortFrom(netip.MustParseAddr(teller), 443)
		c.serversLocked([]string{"server.example"})
		for _, s := range addresstest.Forbidden {
			a := netip.MustParseAddr(s)
			if err := c.permit(a); err == nil && !(c.address.Addr().IsLoopback() && a.Unmap().IsLoopback()) {
				t.Errorf("a server at %s has %s dialled", teller, s)
			}
		}
		if err := errors.Join(c.permit(netip.MustParseAddr("192.0.2.9")), c.permit(netip.MustParseAddr("10.0.0.9"))); err != nil {
			t.Error(err)
		}
		if err := c.permit(netip.MustParseAddr("127.0.0.1")); (err == nil) != c.address.Addr().IsLoopback() {
			t.Errorf("a server at %s and 127.0.0.1: %v", teller, err)
		}
	}
}
