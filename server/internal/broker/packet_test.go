package broker

import (
	"testing"

	"github.com/netport/netport/proto/wire"
)

// kernel is what a relay offers on which a kernel plane runs.
var kernel = func() wire.RelayReady {
	m := ready
	m.Transports |= wire.TransportPacket
	return m
}()

const splicePacket = wire.TransportSplice | wire.TransportPacket

func (s *script) openWith(name, peer string, id wire.GrantID, set wire.Transports) {
	s.b.Open(s.now, name, wire.OpenSession{Request: 1, Peer: peer, Grant: id, Transports: set})
}

func TestEachPortalIsToldItsOwnPacketPorts(t *testing.T) {
	s, id := annAndPlant(t)
	s.relay("r1", kernel)
	s.openWith("ann", "plant", id, splicePacket)
	create := want[wire.CreateSession](s, "relay r1")
	if create.Transports != splicePacket {
		t.Errorf("asked for transports %b", create.Transports)
	}
	answer := wire.SessionReady{ID: create.ID, TCP: 20001, Packet: [2]uint16{20800, 20992}} // the last whole block
	s.b.FromRelay(s.now, "r1", answer)
	for i, name := range []string{"ann", "plant"} {
		m := want[wire.Session](s, "portal "+name)
		if m.Relay.Packet != answer.Packet[i] || m.Relay.TCP != 20001 || m.Transports != splicePacket {
			t.Errorf("%s is told packet port %d, port %d, transports %b", name, m.Relay.Packet, m.Relay.TCP, m.Transports)
		}
	}
	s.b.FromRelay(s.now, "r1", answer)
	s.wantIdle() // said twice
	answer.Packet[1] = 20808
	s.b.FromRelay(s.now, "r1", answer)
	want[wire.Goodbye](s, "relay r1") // it moved the session
}

func TestPacketModeIsOfferedOnlyWhereAllHaveIt(t *testing.T) {
	for what, c := range map[string]struct {
		relay        wire.RelayReady
		opener, peer wire.Transports // peer 0: it does not ask
		packet       [2]uint16
		want         wire.Transports
	}{
		"all":                  {kernel, splicePacket, splicePacket, [2]uint16{20800, 20808}, splicePacket},
		"peer did not ask":     {kernel, splicePacket, 0, [2]uint16{20800, 20808}, splicePacket},
		"the relay has no one": {ready, splicePacket, splicePacket, [2]uint16{}, wire.TransportSplice},
		"no ports":             {kernel, splicePacket, splicePacket, [2]uint16{}, wire.TransportSplice},
		"not the opener":       {kernel, wire.TransportSplice, splicePacket, [2]uint16{}, wire.TransportSplice},
		"not the peer":         {kernel, splicePacket, wire.TransportSplice, [2]uint16{}, wire.TransportSplice},
	} {
		s, id := annAndPlant(t)
		s.relay("r1", c.relay)
		if c.peer != 0 { // and is turned round, since its name is larger
			s.openWith("plant", "ann", id, c.peer)
			want[wire.CreateSession](s, "relay r1")
		}
		s.openWith("ann", "plant", id, c.opener)
		if c.peer != 0 {
			want[wire.EndSession](s, "relay r1")
		}
		create := want[wire.CreateSession](s, "relay r1")
		s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, TCP: 20001, Packet: c.packet})
		for _, name := range []string{"ann", "plant"} {
			if m := want[wire.Session](s, "portal "+name); m.Transports != c.want {
				t.Errorf("%s: %s may use transports %b, want %b", what, name, m.Transports, c.want)
			}
		}
	}
}

// T29: the ports that portals are sent to are the relay's own.
func TestRelayThatLiesAboutPacketPortsIsDropped(t *testing.T) {
	high := kernel
	high.First, high.Last = 65000, 65535
	for what, c := range map[string]struct {
		offer wire.RelayReady
		asked wire.Transports
		m     wire.SessionReady
	}{
		"below its range":       {kernel, splicePacket, wire.SessionReady{TCP: 20001, Packet: [2]uint16{19999, 20800}}},
		"privileged":            {kernel, splicePacket, wire.SessionReady{TCP: 20001, Packet: [2]uint16{20800, 22}}},
		"above its range":       {kernel, splicePacket, wire.SessionReady{TCP: 20001, Packet: [2]uint16{21000, 20800}}},
		"a block that ends out": {kernel, splicePacket, wire.SessionReady{TCP: 20001, Packet: [2]uint16{20800, 20993}}},
		"a block past 65535":    {high, splicePacket, wire.SessionReady{TCP: 65000, Packet: [2]uint16{65000, 65529}}},
		"nobody asked":          {kernel, wire.TransportSplice, wire.SessionReady{TCP: 20001, Packet: [2]uint16{20800, 20808}}},
	} {
		s, id := annAndPlant(t)
		s.relay("r1", c.offer)
		s.openWith("ann", "plant", id, c.asked)
		c.m.ID = want[wire.CreateSession](s, "relay r1").ID
		s.b.FromRelay(s.now, "r1", c.m)
		if bye := want[wire.Goodbye](s, "relay r1"); bye.Reason != wire.ReasonProtocol {
			t.Errorf("%s: %v", what, bye)
		}
		s.wantRefused("ann", 1, wire.ReasonNoRelay)
		s.wantEmpty()
	}
}

func TestPacketPortsAloneAreEnough(t *testing.T) {
	s, id := annAndPlant(t)
	offer := kernel
	offer.SharedTCP = 0
	s.relay("r1", offer)
	s.openWith("ann", "plant", id, splicePacket)
	create := want[wire.CreateSession](s, "relay r1")
	s.b.FromRelay(s.now, "r1", wire.SessionReady{ID: create.ID, Packet: [2]uint16{20800, 20808}})
	s.wantTold("ann", "plant", [2]uint32{1, 0})
}
