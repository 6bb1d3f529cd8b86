package broker

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/netport/netport/proto/wire"
)

// wantPlaces takes a whole list of other relays and compares its first addresses.
func (s *script) wantPlaces(relay string, addresses ...string) []wire.OtherRelay {
	s.t.Helper()
	var list []wire.OtherRelay
	for {
		m := want[wire.OtherRelays](s, "relay "+relay)
		list = append(list, m.Relays...)
		if !m.More {
			break
		}
	}
	var got []string
	for _, o := range list {
		got = append(got, o.Addresses[0].String())
	}
	if !slices.Equal(got, addresses) {
		s.t.Fatalf("%s is told of relays at %v, want %v", relay, got, addresses)
	}
	return list
}

// T5: no relay takes a leg from another.
func TestRelaysAreToldWhereTheOthersAre(t *testing.T) {
	s := newScript(t, 10)
	s.relayAt("r1", "192.0.2.1", ready)
	s.wantPlaces("r1")
	s.b.RelayUp(s.now, "r2", []netip.Addr{netip.MustParseAddr("192.0.2.2")})
	s.wantIdle() // it has not said its ports
	offer := ready
	offer.First, offer.SharedUDP = 20500, 3478
	s.b.FromRelay(s.now, "r2", offer)
	list := s.wantPlaces("r1", "192.0.2.2")
	if o := list[0]; o.First != 20500 || o.Last != 20999 || o.SharedTCP != 443 || o.SharedUDP != 3478 {
		t.Errorf("told %+v", o)
	}
	s.wantPlaces("r2", "192.0.2.1")
	// The second of several messages is no news.
	s.b.FromRelay(s.now, "r2", offer)
	s.wantIdle()
	// Who is away may still forward.
	s.b.RelayDown(s.now, "r1")
	s.b.RelayDown(s.now, "r2")
	s.relayAt("r2", "192.0.2.2", offer)
	s.wantPlaces("r2", "192.0.2.1")
	s.wantIdle()
	// A relay that comes back as it was concerns nobody else, one that moved all.
	s.relayAt("r1", "192.0.2.1", ready)
	s.wantPlaces("r1", "192.0.2.2")
	s.wantIdle()
	s.relayAt("r1", "192.0.2.7", ready)
	s.wantPlaces("r2", "192.0.2.7")
	s.wantPlaces("r1", "192.0.2.2")
	s.wantIdle()
}

func TestManyRelaysAreToldInSeveralMessages(t *testing.T) {
	s := newScript(t, 10)
	var addresses []string
	for i := range wire.MaxOthers + 1 {
		addresses = append(addresses, fmt.Sprintf("192.0.2.%d", i))
		s.relayAt(fmt.Sprintf("r%03d", i), addresses[i], ready)
	}
	s.sent = nil
	s.relayAt("z", "198.51.100.1", ready)
	for len(s.sent) > 0 && s.sent[0].to != "relay z" {
		s.sent = s.sent[1:]
	}
	s.wantPlaces("z", addresses...)
	s.wantIdle()
}
