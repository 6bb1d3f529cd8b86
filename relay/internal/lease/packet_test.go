package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/source"
)

// memory is a kernel plane's tables, as far as the rules use them.
type memory struct {
	admitted map[admission]bool
	records  map[RecordKey][]byte
	puts     int
	room     int // for admissions
	full     bool
}

// The kernel plane itself is what the rules are written for.
var _ Kernel = (*bpf.Kernel)(nil)

var errFull = errors.New("full")

func newMemory() *memory {
	return &memory{admitted: make(map[admission]bool), records: make(map[RecordKey][]byte), room: 1000}
}

func (m *memory) Admit(addr netip.Addr, first uint16) error {
	if at := (admission{addr, first}); !m.admitted[at] && len(m.admitted) >= m.room {
		return errFull
	}
	m.admitted[admission{addr, first}] = true
	return nil
}

func (m *memory) Dismiss(addr netip.Addr, first uint16) error {
	delete(m.admitted, admission{addr, first})
	return nil
}

func (m *memory) PutRecord(key RecordKey, record []byte) error {
	if m.full {
		return errFull
	}
	m.puts++
	m.records[key] = slices.Clone(record)
	return nil
}

func (m *memory) DeleteRecord(key RecordKey) error {
	delete(m.records, key)
	return nil
}

var (
	own   = netip.MustParseAddr("198.51.100.1")
	annAt = netip.MustParseAddr("192.0.2.10")
	boAt  = netip.MustParseAddr("192.0.2.20")
)

// packetLimits has two blocks of packet ports, 28672 and 28680.
func packetLimits(m *memory) Limits {
	return Limits{First: 20000, Last: 28671, Sessions: 1000, PerPortal: 1000, SharedUDP: true, Packet: &Packet{
		First: 28672, Last: 28687, Kernel: m,
		Sources: &source.Rules{Own: func(a netip.Addr) bool { return a == own }},
	}}
}

func packetTable() (*Table, *memory) {
	m := newMemory()
	return NewTable(packetLimits(m)), m
}

// packetOrder is an order of a session that may use packet mode, with where the
// server saw its portals.
func packetOrder(sources ...netip.Addr) wire.CreateSession {
	m := order("ann", "bo")
	m.Transports |= wire.TransportPacket
	for i, a := range sources {
		m.Legs[i].Source = a
	}
	return m
}

func wantExpected(t *testing.T, table *Table, source netip.Addr, port uint16, s Session, n uint8) {
	t.Helper()
	if got, why := table.Expect(start, source, port); got != (Expected{s, n}) || why != drop.None {
		t.Errorf("%v at port %d: %v leg %d, %v; want %v leg %d", source, port, got.ID, got.Leg, why, s.ID, n)
	}
}

func wantNobody(t *testing.T, table *Table, source netip.Addr, port uint16, want drop.Reason) {
	t.Helper()
	if got, why := table.Expect(start, source, port); got != (Expected{}) || why != want {
		t.Errorf("%v at port %d: %v leg %d, %v; want %v", source, port, got.ID, got.Leg, why, want)
	}
}

func TestEachLegHasABlockForItsSource(t *testing.T) {
	table, kernel := packetTable()
	s := create(t, table, packetOrder(annAt, boAt))
	if s.Packet[0] == 0 || s.Packet[1] == 0 || s.Port < 20000 || s.Port > 28671 {
		t.Fatalf("ports %d and %v", s.Port, s.Packet)
	}
	for n, a := range []netip.Addr{annAt, boAt} {
		for i := range uint16(leg.PacketPorts) {
			wantExpected(t, table, a, s.Packet[n]+i, s, uint8(n))
		}
		if !kernel.admitted[admission{a, s.Packet[n]}] {
			t.Errorf("%v is not admitted at %d", a, s.Packet[n])
		}
	}
	wantExpected(t, table, netip.AddrFrom16(annAt.As16()), s.Packet[0], s, 0)
	wantNobody(t, table, annAt, s.Packet[1], drop.UnknownSource)
	wantNobody(t, table, boAt, s.Packet[0], drop.UnknownSource)
	wantNobody(t, table, netip.MustParseAddr("192.0.2.11"), s.Packet[0], drop.UnknownSource)
	for _, port := range []uint16{0, s.Port, 28671, 28688, 65535} {
		wantNobody(t, table, annAt, port, drop.UnknownSource)
	}
	table.End(s.ID)
	wantNobody(t, table, annAt, s.Packet[0], drop.UnknownSource)
	if len(kernel.admitted)+len(table.blocks.held)+len(kernel.records) != 0 {
		t.Errorf("left: %v, %v, %d records", kernel.admitted, table.blocks.held, len(kernel.records))
	}
}

// There are two blocks only: what differs by its source may share them.
func TestBlockIsOneLegsForEachSource(t *testing.T) {
	table, _ := packetTable()
	type place struct {
		addr  netip.Addr
		block uint16
	}
	held := make(map[place]bool)
	var sessions []Session
	for i := range byte(20) {
		a, b := netip.AddrFrom4([4]byte{192, 0, 2, i}), netip.AddrFrom4([4]byte{203, 0, 113, i % 10})
		s := create(t, table, packetOrder(a, b))
		for n, addr := range []netip.Addr{a, b} {
			if p := (place{addr, s.Packet[n]}); s.Packet[n] == 0 || held[p] {
				t.Errorf("session %d, leg %d: block %d for %v, given before: %v", i, n, s.Packet[n], addr, held[p])
			} else {
				held[p] = true
			}
		}
		sessions = append(sessions, s)
	}
	// Each of 203.0.113.0 to 9 has both blocks now.
	full := packetOrder(annAt, netip.MustParseAddr("203.0.113.0"))
	if s := create(t, table, full); s.Packet != [2]uint16{} || s.Transports&wire.TransportPacket != 0 || s.Port == 0 {
		t.Errorf("ports %d and %v, transports %b, though no block is free", s.Port, s.Packet, s.Transports)
	}
	table.End(sessions[0].ID)
	s := create(t, table, packetOrder(annAt, netip.MustParseAddr("203.0.113.0")))
	if s.Packet[1] != sessions[0].Packet[1] {
		t.Errorf("block %d, want %d, which came free", s.Packet[1], sessions[0].Packet[1])
	}
	// Behind one NAT both legs have the same source, so two blocks.
	s = create(t, table, packetOrder(boAt, boAt))
	if s.Packet[0] == s.Packet[1] || s.Packet[0] == 0 {
		t.Errorf("two legs of one source have blocks %v", s.Packet)
	}
}

func TestPacketPortsAreGivenOnlyWherePacketModeCanWork(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::20")
	splice := packetOrder(annAt, boAt)
	splice.Transports &^= wire.TransportPacket
	for what, c := range map[string]struct {
		m    wire.CreateSession
		tune func(*Limits, *memory)
		want bool
	}{
		"all is well":                {packetOrder(annAt, boAt), nil, true},
		"IPv6":                       {packetOrder(netip.MustParseAddr("2001:db8::10"), v6), nil, true},
		"IPv4-mapped and IPv4":       {packetOrder(netip.AddrFrom16(annAt.As16()), boAt), nil, true},
		"two IP versions":            {packetOrder(annAt, v6), nil, false},
		"a source was not seen":      {packetOrder(annAt), nil, false},
		"the portals cannot":         {splice, nil, false},
		"an own address":             {packetOrder(annAt, own), nil, false},
		"loopback":                   {packetOrder(netip.MustParseAddr("127.0.0.1"), boAt), nil, false},
		"no kernel plane":            {packetOrder(annAt, boAt), func(l *Limits, _ *memory) { l.Packet = nil }, false},
		"the kernel's table is full": {packetOrder(annAt, boAt), func(_ *Limits, m *memory) { m.room = 1 }, false},
		"another relay's address": {packetOrder(annAt, boAt), func(l *Limits, _ *memory) {
			l.Packet.Sources.SetOthers([]wire.OtherRelay{{Addresses: []netip.Addr{boAt}, First: 1, Last: 1}})
		}, false},
	} {
		m := newMemory()
		l := packetLimits(m)
		if c.tune != nil {
			c.tune(&l, m)
		}
		table := NewTable(l)
		s := create(t, table, c.m)
		if got := s.Packet[0] != 0 && s.Packet[1] != 0 && s.Transports&wire.TransportPacket != 0; got != c.want || !got && s.Packet != [2]uint16{} {
			t.Errorf("%s: packet ports %v, transports %b", what, s.Packet, s.Transports)
		}
		if !c.want && len(m.admitted)+len(table.blocks.held) > 0 {
			t.Errorf("%s: admitted %v, held %v", what, m.admitted, table.blocks.held)
		}
		if s.Port == 0 {
			t.Errorf("%s: the session has no port of its own", what)
		}
	}
}

func TestSessionOfPacketModeAloneTakesNoOtherPort(t *testing.T) {
	table, _ := packetTable()
	m := packetOrder(annAt, boAt)
	m.Transports = wire.TransportPacket
	if s := create(t, table, m); s.Port != 0 || s.Packet[0] == 0 {
		t.Errorf("ports %d and %v", s.Port, s.Packet)
	}
	lost := packetOrder(annAt)
	lost.Transports = wire.TransportPacket
	_, _, err := table.Create(start, lost)
	wantRefusal(t, err, wire.ReasonBusy)
}

// What a leg proved may come in packet mode, too; what somebody claims may not.
func TestProvenSourcesAreAdmitted(t *testing.T) {
	table, kernel := packetTable()
	m := packetOrder(annAt, boAt)
	s := create(t, table, m)
	at := func(i byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 1, i}), 999) }

	wrong := m
	wrong.Legs[0].Secret = wire.NewSecret()
	table.Prove(start, prove(wrong, 0, 0), at(1), s.Port)
	wantNobody(t, table, at(1).Addr(), s.Packet[0], drop.UnknownSource)
	p := prove(m, 0, 0)
	if why := table.Prove(start, p, netip.AddrPortFrom(netip.AddrFrom16(at(1).Addr().As16()), 999), s.Port); why != drop.None {
		t.Fatal(why)
	}
	wantExpected(t, table, at(1).Addr(), s.Packet[0], s, 0)
	wantNobody(t, table, at(1).Addr(), s.Packet[1], drop.UnknownSource)
	table.Prove(start, p, at(2), s.Port) // replayed
	wantNobody(t, table, at(2).Addr(), s.Packet[0], drop.UnknownSource)
	table.Prove(start, prove(m, 0, 0), netip.AddrPortFrom(own, 999), s.Port)
	wantNobody(t, table, own, s.Packet[0], drop.UnknownSource)

	packet, _ := binder(m, 0, 9).Packet(start)
	q, err := leg.ParseRequest(packet)
	if err != nil || table.Bind(start, q, bindAt(at(3), s.Port), false).Answer == nil {
		t.Fatalf("no challenge, %v", err)
	}
	wantNobody(t, table, at(3).Addr(), s.Packet[0], drop.UnknownSource) // it has not read the challenge
	b := binder(m, 0, 0)
	wantOutcome(t, "bind", bind(t, table, b, at(3), s.Port), drop.None)
	wantExpected(t, table, at(3).Addr(), s.Packet[0], s, 0)
	b.Start()
	wantOutcome(t, "bind", bind(t, table, b, at(4), s.Port), drop.None)
	wantExpected(t, table, at(4).Addr(), s.Packet[0], s, 0)
	b.Start()
	wantOutcome(t, "the fifth source", bind(t, table, b, at(5), s.Port), drop.None)
	wantNobody(t, table, at(5).Addr(), s.Packet[0], drop.UnknownSource)
	if len(kernel.admitted) != MaxSources+1 {
		t.Errorf("admitted: %v", kernel.admitted)
	}

	// The block is this leg's for that source now.
	o := create(t, table, packetOrder(at(1).Addr(), boAt))
	if o.Packet[0] == 0 || o.Packet[0] == s.Packet[0] {
		t.Errorf("block %d for a source that has %d already", o.Packet[0], s.Packet[0])
	}
}

// A leg proves a source that is another leg's at its block: it does without.
func TestSourceOfAnotherLegIsNotTaken(t *testing.T) {
	table, _ := packetTable()
	first, second := packetOrder(annAt, boAt), packetOrder(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	a, b := create(t, table, first), create(t, table, second)
	n := uint8(slices.Index(b.Packet[:], a.Packet[0])) // the leg with the same block
	if why := table.Prove(start, prove(second, n, 0), netip.AddrPortFrom(annAt, 5), b.Port); why != drop.None {
		t.Fatal(why)
	}
	wantExpected(t, table, annAt, a.Packet[0], a, 0)
	table.End(b.ID)
	wantExpected(t, table, annAt, a.Packet[0], a, 0)
}

func TestRulesHoldForWhoIsAdmittedAlready(t *testing.T) {
	table, _ := packetTable()
	s := create(t, table, packetOrder(annAt, boAt))
	table.limits.Packet.Sources.SetOthers([]wire.OtherRelay{{Addresses: []netip.Addr{annAt}, First: 1, Last: 1}})
	wantNobody(t, table, annAt, s.Packet[0], drop.ForbiddenSource)
	wantExpected(t, table, boAt, s.Packet[1], s, 1)
	if _, why := table.Expect(start.Add(ProveTime), boAt, s.Packet[1]); why != drop.Expired {
		t.Errorf("after its end: %v", why)
	}
}

func TestInstalledPairProvesTheSession(t *testing.T) {
	table, _ := packetTable()
	s := create(t, table, packetOrder(annAt, boAt))
	at := start.Add(ProveTime - time.Second)
	if !table.Installed(at, s.ID) {
		t.Error("the session is not there")
	}
	if due := table.Expired(at.Add(time.Minute - time.Millisecond)); len(due) != 0 {
		t.Errorf("%v expired early", due)
	}
	over := at.Add(time.Minute)
	if due := table.Expired(over); fmt.Sprint(due) != fmt.Sprint([]wire.SessionID{s.ID}) {
		t.Errorf("expired: %v", due)
	}
	if table.Installed(over, s.ID) || table.Installed(start, wire.NewSessionID()) {
		t.Error("a pair is welcome in a session that is over")
	}
}
