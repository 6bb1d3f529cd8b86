package splice

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

// ticketKey makes the tickets of these tests.
var ticketKey = wire.NewSecret()

func ticketOf(peer string) wire.SessionID {
	return ticket.Session(ticketKey, "ann", peer, time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC))
}

// take opens the session of a ticket, as a daemon does.
func (g *rig) take(k lease.Ticket, source netip.Addr) drop.Reason {
	g.taking.Lock()
	defer g.taking.Unlock()
	s, fresh, why := g.cfg.Leases.Take(g.clock(), k, source)
	if fresh {
		if err := g.Open(s); err != nil {
			g.t.Error(err)
		}
	}
	return why
}

// ticket returns the preface of a leg of a ticket.
func (g *rig) ticket(peer string, n uint8, counter uint64) []byte {
	id := ticketOf(peer)
	return leg.NewMeeting(id, n, counter).AppendTo(nil, ticket.Secret(ticketKey, id, n))
}

func (m *meeting) meet(n uint8, counter uint64) *net.TCPConn {
	m.g.t.Helper()
	return m.g.dial(m.address, leg.NewMeeting(m.ID, n, counter).AppendTo(nil, m.secrets[n]))
}

func (g *rig) awaitWaiting(legs, standing int) {
	g.t.Helper()
	g.await("legs wait", func() bool { w := g.Waiting(); return w.Legs == legs && w.Standing == standing })
}

// wantJoined checks that what a sends comes to b.
func (g *rig) wantJoined(what string, a, b net.Conn) {
	g.t.Helper()
	if _, err := a.Write([]byte("x")); err != nil {
		g.t.Fatalf("%s: %v", what, err)
	}
	g.wantRead(what, b, []byte("x"))
}

func TestNewestLegsMeetTimeAndAgain(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	var a, b [3]*net.TCPConn
	for i := range a {
		n := uint64(10 * i)
		old := m.meet(0, n+1)
		g.awaitWaiting(1, 0)
		a[i] = m.meet(0, n+2)
		wantReset(t, "an older leg that waited", old)
		b[i] = m.meet(1, n+2)
		g.wantJoined("forth", a[i], b[i])
		g.wantJoined("back", b[i], a[i])
	}
	for i := range a {
		g.wantJoined("an earlier meeting", a[i], b[i])
	}
	replayed := m.meet(0, 22)
	g.wantClosed("a replay", replayed, drop.Replayed, 0)
}

// A portal that has come back at another address need not wait for its old
// connection to die, nor need its peer.
func TestNewerLegEndsTheMeetingOfADeadOne(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	far, a := m.meet(1, 1), m.meet(0, 1)
	g.wantJoined("what the client says", a, far)
	m.meet(1, 2)
	g.awaitWaiting(1, 0)
	g.wantJoined("a server that is a round trip away", far, a)

	b := m.meet(0, 2) // with the one that waits, of a portal that is gone
	g.await("they are joined", func() bool { return g.Pairs() == 2 })
	b.Write([]byte("x"))
	g.pass(meetingGrace + 1)
	back := m.meet(1, 3)
	wantReset(t, "the leg that has met a dead one", b)
	g.wantJoined("its next", m.meet(0, 3), back)
	g.wantJoined("a meeting of two that live", a, far)
}

func TestMeetingBeyondTheLimitTakesTheIdlestOnesPlace(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	var first, second [2]*net.TCPConn
	for i := range MaxPairs {
		a, b := m.meet(0, uint64(i+1)), m.meet(1, uint64(i+1))
		g.wantJoined("a meeting", a, b)
		g.wantJoined("a meeting", b, a)
		switch i {
		case 0:
			first = [2]*net.TCPConn{a, b}
		case 1:
			second = [2]*net.TCPConn{a, b}
		}
		g.await("both are counted", func() bool { n := uint64(i + 1); return g.Traffic(m.ID) == lease.Traffic{n, n} })
		g.pass(10 * time.Millisecond)
	}
	g.wantJoined("the first again", first[0], first[1])
	g.await("it is counted", func() bool { return g.Traffic(m.ID)[0] == MaxPairs+1 })
	g.pass(10 * time.Millisecond)
	a := m.meet(0, 1000)
	wantReset(t, "the idlest", second[0])
	g.wantJoined("one more", a, m.meet(1, 1000))
	g.wantJoined("the first", first[1], first[0])
}

func TestTicketsMeetAtTheSharedPort(t *testing.T) {
	g := newRig(t, nil)
	a := g.dial(g.shared, g.ticket("bo", 0, 1))
	g.awaitWaiting(0, 1)
	g.pass(StandTimeout - time.Second) // far longer than others
	b := g.dial(g.shared, g.ticket("bo", 1, 1))
	g.wantJoined("forth", a, b)
	g.wantJoined("back", b, a)

	c := g.dial(g.shared, g.ticket("cy", 0, 1))
	g.awaitWaiting(0, 1)
	g.pass(StandTimeout)
	wantReset(t, "a leg for which nobody came", c)
	if got := g.cfg.Drops.Count(drop.WaitTimeout); got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}

func TestForgedTicketIsClosedWithoutAnAnswer(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	good := g.ticket("bo", 0, 1)
	forged := append([]byte(nil), good...)
	forged[63] ^= 1
	numbered := leg.NewPreface(leg.ID{Session: ticketOf("bo")})
	g.wantClosed("a wrong MAC", g.dial(g.shared, forged), drop.WrongMAC, 0)
	g.wantClosed("at a session's port", g.dial(m.address, good), drop.UnknownSession, 0)
	g.wantClosed("a number", g.dial(g.shared, numbered.AppendTo(nil, ticket.Secret(ticketKey, numbered.ID.Session, 0))), drop.UnknownSession, 1)
	if got := g.cfg.Leases.Len(); got != 1 {
		t.Errorf("%d sessions, want the ordered one", got)
	}
	g.dial(g.shared, good)
	g.awaitWaiting(0, 1)
	g.wantClosed("a replay", g.dial(g.shared, good), drop.Replayed, 0)
	g.awaitWaiting(0, 1)
}

// Legs of tickets, of which many may wait for long, take no place of others.
func TestStandingLegsKeepNoOthersOut(t *testing.T) {
	g := newRig(t, nil, func(r *Relay) { r.waiting.room, r.standing.room = 2, 2 })
	m := g.session()
	ordered := g.dial(m.address, m.preface(0, 0))
	oldest := g.dial(g.shared, g.ticket("p0", 0, 1))
	g.awaitWaiting(1, 1)
	g.dial(g.shared, g.ticket("p1", 0, 1))
	g.awaitWaiting(1, 2)
	g.dial(g.shared, g.ticket("p2", 0, 1))
	if _, err := oldest.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the oldest leg of a ticket ends with %v", err)
	}
	g.awaitWaiting(1, 2)
	g.wantJoined("an ordered session's", ordered, g.dial(m.address, m.preface(1, 0)))
}
