package lease

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

var (
	start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	home  = netip.MustParseAddrPort("192.0.2.1:4000")
	away  = netip.MustParseAddrPort("192.0.2.1:4001")
)

func newTable() *Table {
	return NewTable(Limits{First: 20000, Last: 20003, Sessions: 6, PerPortal: 3, SharedTCP: true})
}

// order is what a server sends to have a session between two portals.
func order(opener, peer string) wire.CreateSession {
	return wire.CreateSession{
		ID:         wire.NewSessionID(),
		Lifetime:   60,
		Transports: wire.TransportSplice | wire.TransportUDP,
		Legs:       [2]wire.Leg{{Portal: opener, Secret: wire.NewSecret()}, {Portal: peer, Secret: wire.NewSecret()}},
	}
}

func create(t *testing.T, table *Table, m wire.CreateSession) Session {
	t.Helper()
	s, fresh, err := table.Create(start, m)
	if err != nil || !fresh {
		t.Fatalf("create: fresh %v, %v", fresh, err)
	}
	return s
}

func wantRefusal(t *testing.T, err error, want wire.Reason) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("got %v, want a refusal because of %v", err, want)
	}
}

func TestPortalGetsItsQuotaAndNoMore(t *testing.T) {
	table := newTable()
	var last Session
	for range 3 {
		last = create(t, table, order("greedy", "b"))
	}
	_, _, err := table.Create(start, order("greedy", "c"))
	wantRefusal(t, err, wire.ReasonBusy)
	create(t, table, order("modest", "greedy")) // who is called pays nothing
	if _, ok := table.End(last.ID); !ok {
		t.Error("the session is not there")
	}
	create(t, table, order("greedy", "c"))
}

func TestRelayHoldsItsLimitOfSessions(t *testing.T) {
	table := newTable()
	for i := range 6 {
		create(t, table, order(string(rune('a'+i)), "z"))
	}
	_, _, err := table.Create(start, order("y", "z"))
	wantRefusal(t, err, wire.ReasonBusy)
	if table.Len() != 6 {
		t.Errorf("%d sessions, want 6", table.Len())
	}
}

func TestPortsAreOfOneSessionAndUsedInTurn(t *testing.T) {
	table := newTable()
	seen := make(map[uint16]bool)
	var sessions []Session
	for i := range 4 {
		s := create(t, table, order(string(rune('a'+i)), "z"))
		if s.Port < 20000 || s.Port > 20003 || seen[s.Port] {
			t.Errorf("port %d is out of range or given twice", s.Port)
		}
		seen[s.Port] = true
		sessions = append(sessions, s)
	}
	if s := create(t, table, order("e", "z")); s.Port != 0 {
		t.Errorf("port %d although all are in use", s.Port)
	}
	udpOnly := order("f", "z")
	udpOnly.Transports = wire.TransportUDP
	_, _, err := table.Create(start, udpOnly) // there is no shared UDP port
	wantRefusal(t, err, wire.ReasonBusy)

	table.End(sessions[2].ID)
	if s := create(t, table, order("g", "z")); s.Port != sessions[2].Port {
		t.Errorf("port %d, want %d, which came free", s.Port, sessions[2].Port)
	}
}

func TestPortThatCannotBeOpenedIsNotTriedAgain(t *testing.T) {
	table := newTable()
	s := create(t, table, order("a", "z"))
	taken := map[uint16]bool{s.Port: true}
	for range 3 {
		moved, err := table.MovePort(s.ID)
		if err != nil || moved.Port == 0 || taken[moved.Port] {
			t.Fatalf("moved to %d, %v", moved.Port, err)
		}
		taken[moved.Port] = true
	}
	if moved, err := table.MovePort(s.ID); err != nil || moved.Port != 0 {
		t.Errorf("moved to %d, %v; want the shared port", moved.Port, err)
	}
}

func TestRepeatedOrderIsAnsweredAlike(t *testing.T) {
	table := newTable()
	m := order("a", "b")
	want := create(t, table, m)
	got, fresh, err := table.Create(start, m)
	if got != want || fresh || err != nil {
		t.Errorf("got %+v, %v, %v; want %+v again", got, fresh, err, want)
	}
	m.Legs[1].Secret = wire.NewSecret()
	_, _, err = table.Create(start, m)
	wantRefusal(t, err, wire.ReasonProtocol)
	if table.Len() != 1 {
		t.Errorf("%d sessions, want 1", table.Len())
	}
}

func TestSessionLivesAsLongAsItCarries(t *testing.T) {
	table := newTable()
	s := create(t, table, order("a", "b"))
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

	table.Renew(at(50), s.ID, Traffic{1, 0})
	table.Renew(at(100), s.ID, Traffic{1, 0}) // nothing new
	if due := table.Expired(at(110).Add(-time.Nanosecond)); len(due) != 0 {
		t.Errorf("%v expired early", due)
	}
	if due := table.Expired(at(110)); len(due) != 1 || due[0] != s.ID {
		t.Errorf("expired: %v, want %v", due, s.ID)
	}
	if _, ok := table.End(s.ID); !ok {
		t.Error("the expired session is not there to end")
	}
	if _, ok := table.End(s.ID); ok || table.Len() != 0 {
		t.Error("the session ended twice")
	}
}

func TestLegIsRefusedFromTheMomentTheLifetimeIsOver(t *testing.T) {
	table := newTable()
	m := order("a", "b")
	s := create(t, table, m)
	p := prove(m, 0, 0)
	if got := table.Prove(start, p, home, s.Port); got != drop.None {
		t.Errorf("the first leg: %v", got)
	}
	over := start.Add(time.Minute)
	p = prove(m, 1, 0)
	if got := table.Prove(over, p, home, s.Port); got != drop.Expired {
		t.Errorf("at its end: %v, want %v", got, drop.Expired)
	}
	if got := table.Prove(over.Add(-time.Millisecond), p, home, s.Port); got != drop.None {
		t.Errorf("a millisecond before: %v", got)
	}
	if got := table.Prove(over, prove(m, 0, 1), home, s.Port); got != drop.None {
		t.Errorf("after a leg renewed it: %v", got)
	}
}

// F53: the server may have died before it told the portals.
func TestSessionOfWhichNoLegIsProvenEndsSoon(t *testing.T) {
	table := newTable()
	s := create(t, table, order("a", "b"))
	if due := table.Expired(start.Add(ProveTime - time.Millisecond)); len(due) > 0 {
		t.Errorf("%v expired early", due)
	}
	if due := table.Expired(start.Add(ProveTime)); len(due) != 1 || due[0] != s.ID {
		t.Errorf("expired: %v, want %v", due, s.ID)
	}
}

// prove returns a preface as it is read from the wire.
func prove(m wire.CreateSession, n uint8, connection uint16) leg.Preface {
	id := leg.ID{Session: m.ID, Leg: n, Connection: connection}
	p, err := leg.ParsePreface(leg.NewPreface(id).AppendTo(nil, m.Legs[n].Secret))
	if err != nil {
		panic(err)
	}
	return p
}

// T12: a portal that knows another's session, and even the secret of its own leg of one, tries 10,000 times to be a leg of
// it, and to guess an id: nothing is taken, and the session is there for whose it is.
func TestNobodyGuessesALeg(t *testing.T) {
	const tries = 10_000
	table := newTable()
	m, foreign := order("a", "b"), order("c", "d")
	s := create(t, table, m)
	create(t, table, foreign)
	for i := range tries {
		guess := m
		guess.Legs[0].Secret, guess.Legs[1].Secret = wire.NewSecret(), foreign.Legs[i%2].Secret
		if got := table.Prove(start, prove(guess, uint8(i%2), 0), home, s.Port); got != drop.WrongMAC {
			t.Fatalf("try %d at a secret: %v", i, got)
		}
		guess = foreign
		if guess.ID = m.ID; i%2 == 0 {
			guess.ID = wire.NewSessionID()
		}
		if got := table.Prove(start, prove(guess, uint8(i%2), 0), home, 0); got == drop.None {
			t.Fatalf("try %d at an id: taken", i)
		}
	}
	for side := range uint8(2) {
		if got := table.Prove(start, prove(m, side, 0), home, s.Port); got != drop.None {
			t.Errorf("the true leg %d: %v", side, got)
		}
	}
}

func TestPrefaceIsJudged(t *testing.T) {
	table := newTable()
	m, foreign := order("a", "b"), order("c", "d")
	s, f := create(t, table, m), create(t, table, foreign)
	want := func(what string, want drop.Reason, p leg.Preface, port uint16) {
		t.Helper()
		if got := table.Prove(start, p, home, port); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	wrong := m
	wrong.Legs[0].Secret = m.Legs[1].Secret
	want("the other leg's secret", drop.WrongMAC, prove(wrong, 0, 0), s.Port)
	want("a session that does not exist", drop.UnknownSession, prove(order("a", "b"), 0, 0), 0)
	want("another session's port", drop.UnknownSession, prove(m, 0, 0), f.Port)

	first := prove(m, 0, 0)
	want("a leg", drop.None, first, s.Port)
	want("the same bytes", drop.Replayed, first, s.Port)
	want("the same bytes at the shared port", drop.Replayed, first, 0)
	want("a new dial of the same connection", drop.None, prove(m, 0, 0), 0)
	want("the other leg", drop.None, prove(m, 1, 0), s.Port)
	if id := first.ID; !table.Join(id) || table.Join(id.Other()) {
		t.Error("the connection is not joined exactly once")
	}
	want("a joined connection", drop.Joined, prove(m, 0, 0), s.Port)
	want("the same bytes after the join", drop.Joined, first, s.Port)
	want("the next connection", drop.None, prove(m, 0, 1), s.Port)

	for range maxTries - 1 {
		want("one dial more", drop.None, prove(m, 0, 1), s.Port)
	}
	want("a dial too many", drop.Limit, prove(m, 0, 1), s.Port)
	for n := uint16(2); n < MaxConnections; n++ {
		want("one connection more", drop.None, prove(m, 0, n), s.Port)
	}
	want("a connection too many", drop.Limit, prove(m, 0, MaxConnections), s.Port)
	table.End(m.ID)
	want("a session that has ended", drop.UnknownSession, prove(m, 1, 1), 0)
	if table.Join(leg.ID{Session: m.ID, Connection: 1}) {
		t.Error("a connection of an ended session is joined")
	}
}
