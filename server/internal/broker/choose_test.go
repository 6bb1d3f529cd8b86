package broker

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/couple"
)

// Each case says what the relays "near" and "far" are to the portals a and b,
// and what they have to do; "near" is asked unless it says otherwise.
func TestRelayIsChosenByRoundTripsAndLoad(t *testing.T) {
	type trips = map[string]int
	for what, c := range map[string]struct {
		a, b trips
		load map[string]wire.RelayLoad
		lost string // by a
		want string
	}{
		"the sum counts":                         {a: trips{"near": 30, "far": 1}, b: trips{"near": 10, "far": 45}, want: "near"},
		"not the nearest to one":                 {a: trips{"near": 20, "far": 5}, b: trips{"near": 20, "far": 50}, want: "near"},
		"known before unknown":                   {a: trips{"near": 300}, b: trips{"near": 300}, want: "near"},
		"known to one is not known":              {a: trips{"near": 90, "far": 1}, b: trips{"near": 90}, want: "near"},
		"some load is no reason":                 {a: trips{"near": 10, "far": 20}, b: trips{"near": 10, "far": 20}, load: map[string]wire.RelayLoad{"near": {Sessions: 40}}, want: "near"},
		"much load is":                           {a: trips{"near": 10, "far": 20}, b: trips{"near": 10, "far": 20}, load: map[string]wire.RelayLoad{"near": {Sessions: 60}}, want: "far"},
		"much traffic is":                        {a: trips{"near": 10, "far": 11}, b: trips{"near": 10, "far": 11}, load: map[string]wire.RelayLoad{"near": {Rate: 1e9 / 2}}, want: "far"},
		"an ocean is further than much load":     {a: trips{"near": 10, "far": 90}, b: trips{"near": 10, "far": 90}, load: map[string]wire.RelayLoad{"near": {Sessions: 85}}, want: "near"},
		"crowded comes after unknown":            {a: trips{"near": 1}, b: trips{"near": 1}, load: map[string]wire.RelayLoad{"near": {Sessions: 90}}, want: "far"},
		"crowded comes before silent":            {a: trips{"near": 1, "far": 0}, b: trips{"near": 1, "far": 1}, load: map[string]wire.RelayLoad{"near": {Sessions: 95}}, want: "near"},
		"full is not asked":                      {a: trips{"near": 1, "far": 0}, b: trips{"near": 1, "far": 0}, load: map[string]wire.RelayLoad{"near": {Sessions: 100}}, want: "far"},
		"who does not answer one comes last":     {a: trips{"near": 200}, b: trips{"near": 200, "far": 0}, want: "near"},
		"but for the one that was lost":          {a: trips{"near": 1, "far": 0}, b: trips{"near": 1, "far": 0}, lost: "near", want: "far"},
		"nothing known: the least load":          {load: map[string]wire.RelayLoad{"far": {Sessions: 1}}, want: "near"},
		"nothing known and no load: by the name": {want: "far"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newScript(t, 10)
			id := s.grant(1, "a", "b")
			s.portals("a", "b")
			s.relay("far", ready)
			s.relay("near", ready)
			s.times("a", c.a)
			s.times("b", c.b)
			for r, load := range c.load {
				s.b.FromRelay(s.now, r, load)
			}
			s.b.Open(s.now, "a", wire.OpenSession{Request: 1, Peer: "b", Grant: id, Lost: c.lost})
			if m := want[wire.CreateSession](s, "relay "+c.want); m.ID.IsZero() {
				t.Error("asked without an id")
			}
		})
	}
}

func TestLostRelayIsTakenIfThereIsNoOther(t *testing.T) {
	s, id := annAndPlant(t, "r1", "r2")
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 1, Peer: "plant", Grant: id, Lost: "r1"})
	m := want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r2", wire.SessionRefused{ID: m.ID})
	want[wire.CreateSession](s, "relay r1")
	s.wantIdle()
}

func TestRoundTripsAreForgottenWithTheConnection(t *testing.T) {
	for what, lose := range map[string]func(*script){
		"anew":   func(s *script) { s.portals("a", "b") },
		"gone":   func(s *script) { s.b.PortalDown("a"); s.portals("a", "b") },
		"others": func(s *script) { s.times("a", map[string]int{"r9": 1}) },
	} {
		s := newScript(t, 10)
		id := s.grant(1, "a", "b")
		s.portals("a", "b")
		s.relay("r1", ready)
		s.relay("r2", ready)
		s.times("a", map[string]int{"r1": 50, "r2": 5})
		lose(s)
		s.times("nobody", map[string]int{"r1": 1}) // is not connected
		s.open("a", "b", id, 1)
		if len(s.sent) != 1 || s.sent[0].to != "relay r1" { // nothing is known: by the name
			t.Errorf("%s: sent %+v", what, s.sent)
		}
	}
}

func TestOperatorSeesWhatWasMeasured(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "a", "b")
	s.portals("a", "b", "c", "d")
	s.relay("r1", ready)
	s.times("a", map[string]int{"r1": 12})
	s.times("b", map[string]int{"r1": 4})
	s.times("c", map[string]int{"r1": 0})
	s.meet("a", "b", id, "r1")
	if v := s.b.Relays()[0]; v.Measured != 2 || v.Silent != 1 || v.Median != 12 {
		t.Errorf("relay %+v", v)
	}
	if v := s.b.Sessions(s.now)[0]; v.RoundTrips != [2]Milliseconds{12, 4} || v.Pinned {
		t.Errorf("session %+v", v)
	}
	s.pins[couple.Of("b", "a")] = "r1"
	if v := s.b.Sessions(s.now)[0]; !v.Pinned {
		t.Errorf("session %+v", v)
	}
}

func TestPinnedPairMeetsAtItsRelayOrNowhere(t *testing.T) {
	s := newScript(t, 10)
	id := s.grant(1, "ann", "plant")
	s.pins[couple.Of("ann", "plant")] = "r2"
	s.portals("ann", "plant")
	s.relay("r1", ready)
	refused := func(number uint32, reason wire.Reason, text string) {
		t.Helper()
		m := want[wire.Refused](s, "portal ann")
		if m.Request != number || m.Reason != reason || m.Text != text {
			t.Errorf("refused: %v, %q", m.Reason, m.Text)
		}
	}
	const away = "the policy lets these portals meet at the relay r2 alone, and it is not connected to the server"
	const full = "the policy lets these portals meet at the relay r2 alone, and it would not hold the session"
	s.open("ann", "plant", id, 1)
	refused(1, wire.ReasonNoRelay, away)
	s.relay("r2", ready)
	s.times("ann", map[string]int{"r1": 1, "r2": 500})
	s.times("plant", map[string]int{"r1": 1, "r2": 0})
	s.open("ann", "plant", id, 2)
	m := want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r2", wire.SessionRefused{ID: m.ID})
	refused(2, wire.ReasonRelayRefused, full)
	// It is taken also if they have just lost each other there.
	s.b.Open(s.now, "ann", wire.OpenSession{Request: 3, Peer: "plant", Grant: id, Lost: "r2"})
	want[wire.CreateSession](s, "relay r2")
	s.b.FromRelay(s.now, "r2", wire.RelayDraining{Reason: wire.ReasonShutdown})
	want[wire.EndSession](s, "relay r2")
	refused(3, wire.ReasonNoRelay, away)
	s.wantIdle()
	s.wantEmpty()
}

func TestPortalsAreToldWhereToMeasure(t *testing.T) {
	s := newScript(t, 10)
	none := ready
	none.SharedTCP = 0
	s.relay("no-shared", none)
	s.relayAt("b", "198.51.100.2", ready)
	var many []netip.Addr
	for i := range wire.MaxAddresses {
		many = append(many, netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + i)}))
	}
	s.b.RelayUp(s.now, "a", many)
	s.b.FromRelay(s.now, "a", ready)
	s.relayAt("draining", "198.51.100.3", ready)
	s.b.FromRelay(s.now, "draining", wire.RelayDraining{})
	s.relayAt("gone", "198.51.100.4", ready)
	s.b.RelayDown(s.now, "gone")
	s.b.RelayUp(s.now, "mute", many)
	got := s.b.Places()
	want := []wire.RelayPlace{
		{Name: "a", Addresses: many[:4], Port: 443},
		{Name: "b", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.2")}, Port: 443},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("places %v, want %v", got, want)
	}
}

// The longest list fits into a message.
func TestListOfManyRelaysFitsIntoAMessage(t *testing.T) {
	s := newScript(t, 10)
	long := netip.MustParseAddr("2001:db8::1")
	for i := range wire.MaxPlaces + 20 {
		s.b.RelayUp(s.now, fmt.Sprintf("%063d", i), slices.Repeat([]netip.Addr{long}, wire.MaxAddresses))
		s.b.FromRelay(s.now, fmt.Sprintf("%063d", i), ready)
	}
	m := wire.Relays{Relays: s.b.Places()}
	if len(m.Relays) != wire.MaxPlaces {
		t.Errorf("%d relays, want %d", len(m.Relays), wire.MaxPlaces)
	}
	if b := m.AppendTo(nil); len(b) > wire.MaxControl {
		t.Errorf("%d bytes, a message has %d at most", len(b), wire.MaxControl)
	}
}

// P11: what the choice costs grows with the relays, not with the portals.
func BenchmarkBroker(b *testing.B) {
	for _, relays := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("%d relays", relays), func(b *testing.B) {
			s := newScript(new(testing.T), 1<<30)
			offer := ready
			offer.Capacity = 1 << 30
			for i := range relays {
				s.relay(fmt.Sprintf("relay-%d", i), offer)
			}
			const portals = 200
			var names []string
			for i := range portals {
				names = append(names, fmt.Sprintf("portal-%d", i))
				s.portals(names[i])
				for r := range relays {
					s.times(names[i], map[string]int{fmt.Sprintf("relay-%d", r): 10 + r})
				}
			}
			grant := s.grant(1, names[0], names[1])
			b.ReportAllocs()
			for b.Loop() {
				s.sent, s.records = s.sent[:0], s.records[:0]
				s.open(names[0], names[1], grant, 1)
				create := s.sent[0].m.(wire.CreateSession)
				relay := s.sent[0].to[len("relay "):]
				s.b.FromRelay(s.now, relay, wire.SessionReady{ID: create.ID, TCP: 20005})
				s.b.Done(s.now, names[0], wire.SessionDone{Session: create.ID})
				s.b.FromRelay(s.now, relay, wire.SessionOver{ID: create.ID})
			}
		})
	}
}
