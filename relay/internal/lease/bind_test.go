package lease

import (
	"cmp"
	"net/netip"
	"testing"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// sharedPort stands for the shared UDP port, and here for the relay's address.
const sharedPort = 443

var here = netip.MustParseAddr("198.51.100.1")

// bind runs a bind to its end and returns the outcome of its second request.
func bind(t *testing.T, table *Table, b *leg.Binder, source netip.AddrPort, port uint16) Outcome {
	t.Helper()
	request := func() Outcome {
		packet, _ := b.Packet(start)
		q, err := leg.ParseRequest(packet)
		if err != nil {
			t.Fatal(err)
		}
		return table.Bind(start, q, bpf.Leg{Remote: source, Port: cmp.Or(port, sharedPort), Local: here}, port == 0)
	}
	o := request()
	if o.Answer == nil {
		return o
	}
	if o.Moved {
		t.Fatal("bound by the first request")
	}
	b.Handle(o.Answer)
	return request()
}

func binder(m wire.CreateSession, n uint8, connection uint16) *leg.Binder {
	return leg.NewBinder(leg.ID{Session: m.ID, Leg: n, Connection: connection}, m.Legs[n].Secret, 0)
}

func wantOutcome(t *testing.T, what string, o Outcome, want drop.Reason) {
	t.Helper()
	if o.Drop != want || o.Moved != (want == drop.None) || (o.Answer != nil) != (want == drop.None) {
		t.Errorf("%s: drop %v, moved %v, answer of %d bytes; want %v", what, o.Drop, o.Moved, len(o.Answer), want)
	}
}

func TestBothLegsAreNeverBoundToOneSource(t *testing.T) {
	table := newTable()
	m := order("a", "b")
	s := create(t, table, m)
	wantOutcome(t, "leg 0", bind(t, table, binder(m, 0, 0), home, s.Port), drop.None)
	wantOutcome(t, "leg 1, same source", bind(t, table, binder(m, 1, 0), home, s.Port), drop.SourceTaken)
	wantOutcome(t, "leg 1, same source, shared port", bind(t, table, binder(m, 1, 0), home, 0), drop.SourceTaken)
	wantOutcome(t, "another connection, same source", bind(t, table, binder(m, 0, 1), home, s.Port), drop.SourceTaken)
	wantOutcome(t, "leg 1, its own source", bind(t, table, binder(m, 1, 0), away, s.Port), drop.None)
}

func TestSourceAtTheSharedPortBelongsToOneSession(t *testing.T) {
	table := newTable()
	m, other := order("a", "b"), order("c", "d")
	create(t, table, m)
	s := create(t, table, other)
	b, second := binder(m, 0, 0), binder(other, 0, 1)
	wantOutcome(t, "first session", bind(t, table, b, home, 0), drop.None)
	wantOutcome(t, "second session, same source", bind(t, table, binder(other, 0, 0), home, 0), drop.SourceTaken)
	wantOutcome(t, "second session, its own port", bind(t, table, second, home, s.Port), drop.None)
	b.Start()
	second.Start()
	wantOutcome(t, "first session moves", bind(t, table, b, away, 0), drop.None)
	wantOutcome(t, "second session, source free again", bind(t, table, second, home, 0), drop.None)
	table.End(m.ID)
	wantOutcome(t, "second session, source of an ended one", bind(t, table, binder(other, 1, 2), away, 0), drop.None)
	table.End(other.ID)
	if len(table.sources) != 0 {
		t.Errorf("%d sources are left: %v", len(table.sources), table.sources)
	}
}

func TestSessionBindsALimitedNumberOfLegs(t *testing.T) {
	table := newTable()
	m := order("a", "b")
	s := create(t, table, m)
	port := uint16(0)
	next := func() netip.AddrPort { port++; return netip.AddrPortFrom(home.Addr(), port) }
	for n := range uint16(MaxBound) {
		wantOutcome(t, "leg 0", bind(t, table, binder(m, 0, n), next(), s.Port), drop.None)
		wantOutcome(t, "leg 1", bind(t, table, binder(m, 1, n), next(), s.Port), drop.None)
	}
	wantOutcome(t, "one too many", bind(t, table, binder(m, 0, MaxBound), next(), s.Port), drop.Limit)
	moved := binder(m, 1, 3)
	moved.Start()
	wantOutcome(t, "a leg that moves", bind(t, table, moved, next(), s.Port), drop.None)
}

func TestBindIsRefusedSilently(t *testing.T) {
	table := newTable()
	m := order("a", "b")
	s := create(t, table, m)
	stranger := m
	stranger.Legs[0].Secret = wire.NewSecret()
	wantOutcome(t, "wrong secret", bind(t, table, binder(stranger, 0, 0), home, s.Port), drop.WrongMAC)
	wantOutcome(t, "unknown session", bind(t, table, binder(order("a", "b"), 0, 0), home, s.Port), drop.UnknownSession)
	wantOutcome(t, "another port", bind(t, table, binder(m, 0, 0), home, s.Port+1), drop.UnknownSession)
	wantOutcome(t, "leg 0", bind(t, table, binder(m, 0, 0), home, s.Port), drop.None)
	wantOutcome(t, "old counter from elsewhere", bind(t, table, binder(m, 0, 0), away, s.Port), drop.Replayed)
}
