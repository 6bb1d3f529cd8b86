package lease

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
)

// ends is when the tickets of these tests end.
var ends = start.Add(time.Hour)

// ticketTable returns a table with two keys, of which the second makes the
// tickets.
func ticketTable(tune func(*Limits)) (*Table, wire.Secret) {
	l := Limits{First: 20000, Last: 28671, Sessions: 16, PerPortal: 16, SharedTCP: true, SharedUDP: true}
	if tune != nil {
		tune(&l)
	}
	table, key := NewTable(l), wire.NewSecret()
	table.SetTicketKeys([]wire.Secret{wire.NewSecret(), key})
	return table, key
}

func ticketOf(key wire.Secret, peer string) wire.SessionID {
	return ticket.Session(key, "ann", peer, ends)
}

// meet returns the preface of a Meeting leg of a ticket.
func meet(key wire.Secret, id wire.SessionID, n uint8, counter uint64) leg.Preface {
	p := leg.NewMeeting(id, n, counter)
	return parsed(p.AppendTo(nil, ticket.Secret(key, id, n)))
}

func parsed(b []byte) leg.Preface {
	p, err := leg.ParsePreface(b)
	if err != nil {
		panic(err)
	}
	return p
}

// take makes the session of a proven ticket and proves its first leg.
func take(t *testing.T, table *Table, now time.Time, p leg.Preface, source netip.AddrPort) (Session, drop.Reason) {
	t.Helper()
	k, why := table.TicketPreface(now, p)
	if why != drop.None {
		t.Fatalf("a true ticket: %v", why)
	}
	s, _, why := table.Take(now, k, source.Addr())
	if why != drop.None {
		return s, why
	}
	return s, table.Prove(now, p, source, 0)
}

func TestTicketHasItsSessionMade(t *testing.T) {
	table, key := ticketTable(nil)
	id := ticketOf(key, "bo")
	if why := table.Prove(start, meet(key, id, 0, 1), home, 0); why != drop.UnknownSession {
		t.Errorf("a session that nobody has made: %v", why)
	}
	s, why := take(t, table, start, meet(key, id, 0, 1), home)
	want := Session{ID: id, Ends: ends.Local(), Lifetime: TicketLifetime, Transports: wire.TransportSplice | wire.TransportTLS | wire.TransportUDP}
	if s != want || !s.Ticket() || why != drop.None {
		t.Errorf("made %+v, %v; want %+v", s, why, want)
	}
	if _, why := take(t, table, start, meet(key, id, 1, 1), away); why != drop.None || table.Len() != 1 {
		t.Errorf("the other leg: %v, %d sessions", why, table.Len())
	}
	if why := table.Prove(start, parsed(leg.NewPreface(leg.ID{Session: id}).AppendTo(nil, ticket.Secret(key, id, 0))), home, 0); why != drop.Limit {
		t.Errorf("a numbered leg: %v", why)
	}

	table.Renew(ends.Add(-time.Minute), id, Traffic{1, 0})
	if got := table.Expired(ends.Add(-1)); len(got) != 0 {
		t.Error("it is over before its ticket")
	}
	if got := table.Expired(ends); len(got) != 1 {
		t.Error("it outlives its ticket")
	}
	table.End(id)
	if table.Len() != 0 || table.tickets.sessions != 0 || len(table.tickets.perAddress) != 0 {
		t.Errorf("left behind: %+v", table.tickets)
	}
}

func TestTicketThatIsNoneMakesNothing(t *testing.T) {
	table, key := ticketTable(nil)
	id, stranger := ticketOf(key, "bo"), wire.NewSecret()
	over := ticket.Session(key, "ann", "bo", start)
	longer := id // the same ticket with a later end
	longer[7]++
	other := meet(key, id, 0, 1)
	flipped := other.AppendTo(nil, ticket.Secret(key, id, 1)) // of the other leg
	for what, c := range map[string]struct {
		p    leg.Preface
		want drop.Reason
	}{
		"another key's":          {meet(stranger, ticketOf(stranger, "bo"), 0, 1), drop.WrongMAC},
		"the other leg's secret": {parsed(flipped), drop.WrongMAC},
		"a later end":            {parsed(leg.NewMeeting(longer, 0, 1).AppendTo(nil, ticket.Secret(key, id, 0))), drop.WrongMAC},
		"one that has ended":     {meet(key, over, 0, 1), drop.Expired},
		"no ticket":              {meet(key, wire.SessionID{1}, 0, 1), drop.UnknownSession},
		"a numbered leg":         {parsed(leg.NewPreface(leg.ID{Session: id}).AppendTo(nil, ticket.Secret(key, id, 0))), drop.UnknownSession},
	} {
		if _, why := table.TicketPreface(start, c.p); why != c.want {
			t.Errorf("%s: %v, want %v", what, why, c.want)
		}
	}
	table.SetTicketKeys([]wire.Secret{stranger})
	if _, why := table.TicketPreface(start, other); why != drop.WrongMAC {
		t.Errorf("with the key gone: %v", why)
	}
	table.SetTicketKeys(nil)
	if _, why := table.TicketPreface(start, other); why != drop.UnknownSession {
		t.Errorf("without keys: %v", why)
	}
	if table.Len() != 0 {
		t.Errorf("%d sessions were made", table.Len())
	}
}

func request(t *testing.T, b *leg.Binder) leg.Request {
	t.Helper()
	packet, _ := b.Packet(start)
	q, err := leg.ParseRequest(packet)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// T1, T4: a source that is not proven has nothing made, and gets one answer that
// keeps nothing.
func TestTicketIsBoundOnlyFromWhereItsHolderIs(t *testing.T) {
	table, key := ticketTable(nil)
	id := ticketOf(key, "bo")
	secret := ticket.Secret(key, id, 1)
	b := leg.NewBinder(leg.ID{Session: id, Leg: 1}, secret, 0)
	k, o := table.TicketBind(start, request(t, b), home)
	if k != nil || o.Answer == nil || o.Drop != drop.None || table.Len() != 0 {
		t.Fatalf("first request: %v, %+v, %d sessions", k, o, table.Len())
	}
	b.Handle(o.Answer)
	second := request(t, b)
	if k, o := table.TicketBind(start, second, away); k != nil || o.Answer != nil || o.Drop != drop.WrongNonce {
		t.Errorf("second request, replayed from elsewhere: %v, %+v", k, o)
	}
	k, o = table.TicketBind(start, second, home)
	if k == nil || o.Answer != nil || o.Drop != drop.None {
		t.Fatalf("second request: %v, %+v", k, o)
	}
	if _, fresh, why := table.Take(start, *k, home.Addr()); !fresh || why != drop.None {
		t.Errorf("not made: %v", why)
	}
	if o := table.Bind(start, second, bpf.Leg{Remote: home, Port: sharedPort, Local: here}, true); !o.Moved {
		t.Errorf("the request that made it: %+v", o)
	}
	forged := leg.NewBinder(leg.ID{Session: ticketOf(key, "cy")}, wire.NewSecret(), 0)
	if k, o := table.TicketBind(start, request(t, forged), home); k != nil || o.Answer != nil || o.Drop != drop.WrongMAC {
		t.Errorf("forged: %v, %+v", k, o)
	}
}

// T3: what was captured makes no session again.
func TestTicketIsNotReplayed(t *testing.T) {
	table, key := ticketTable(nil)
	id := ticketOf(key, "bo")
	last := meet(key, id, 0, 7)
	for _, p := range []leg.Preface{meet(key, id, 0, 5), last} {
		if _, why := take(t, table, start, p, home); why != drop.None {
			t.Fatal(why)
		}
	}
	table.End(id)
	for _, n := range []uint64{5, 7} {
		if _, why := table.TicketPreface(start, meet(key, id, 0, n)); why != drop.Replayed {
			t.Errorf("counter %d after the end: %v", n, why)
		}
	}
	if _, why := take(t, table, start, meet(key, id, 1, 1), away); why != drop.None {
		t.Errorf("the other leg: %v", why)
	}
	if why := table.Prove(start, last, home, 0); why != drop.Replayed {
		t.Errorf("into the session that the other leg has made: %v", why)
	}
	if why := table.Prove(start, meet(key, id, 0, 8), home, 0); why != drop.None {
		t.Errorf("the next counter: %v", why)
	}
	table.End(id)

	for i := range maxSpent {
		table.tickets.spent[ticket.Session(key, "ann", "bo", ends.Add(time.Duration(i+1)*time.Second))] = [2]uint64{1, 1}
	}
	late := ticket.Session(key, "ann", "bo", ends.Add(maxSpent*time.Hour))
	take(t, table, start, meet(key, late, 0, 1), home)
	table.End(late)
	if _, ok := table.tickets.spent[late]; !ok || len(table.tickets.spent) > maxSpent+1 {
		t.Errorf("%d tickets are remembered, the last among them: %v", len(table.tickets.spent), ok)
	}
	if _, ok := table.tickets.spent[id]; ok {
		t.Error("the ticket that ends first is remembered in the place of a later one")
	}
}

func TestTicketsKeepNoOrderedSessionOut(t *testing.T) {
	table, key := ticketTable(nil) // 16 sessions: 4 of tickets, 2 from one address
	elsewhere := []netip.AddrPort{
		home, home, netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::ffff:0:0:1]:1"),
	}
	peers := []string{"a", "b", "c", "d", "e"}
	for i, source := range elsewhere {
		if _, why := take(t, table, start.Add(time.Duration(i)*time.Second), meet(key, ticketOf(key, peers[i]), 0, 1), source); why != drop.None {
			t.Fatalf("ticket %d: %v", i, why)
		}
		if i == 1 {
			if _, why := take(t, table, start, meet(key, ticketOf(key, "x"), 0, 1), home); why != drop.Limit {
				t.Errorf("a third from one address: %v", why)
			}
		}
	}
	if _, why := take(t, table, start, meet(key, ticketOf(key, "e"), 0, 1), netip.MustParseAddrPort("192.0.2.9:1")); why != drop.Limit {
		t.Errorf("one more than a quarter: %v", why)
	}
	for range 12 {
		create(t, table, order("ann", "bo"))
	}
	_, _, err := table.Create(start, order("ann", "bo"))
	wantRefusal(t, err, wire.ReasonBusy)
	for i := range elsewhere {
		id, ok := table.Displaced()
		if want := ticketOf(key, peers[i]); !ok || id != want {
			t.Fatalf("to give way: %v, %v; want %v, which would end first", id, ok, want)
		}
		table.End(id)
		if _, ok := table.Displaced(); ok {
			t.Error("one more is to give way, though there is room")
		}
		create(t, table, order("ann", "bo"))
	}
	if _, ok := table.Displaced(); ok {
		t.Error("a session that the server ordered is to give way")
	}
}

// T6: a flood of forged tickets costs a bounded number of MACs and leaves nothing.
func TestFloodOfForgedTicketsIsPacedAndLeavesNothing(t *testing.T) {
	table, key := ticketTable(nil)
	const flood = 100_000
	var drops drop.Counters
	b := leg.NewBinder(leg.ID{Session: ticketOf(key, "bo")}, wire.NewSecret(), 0)
	q := request(t, b)
	for i := range flood {
		id := ticketOf(key, "bo")
		id[8], id[9], id[10] = byte(i), byte(i>>8), byte(i>>16)
		p := leg.NewMeeting(id, 0, uint64(i))
		q.ID.Session = id
		_, why := table.TicketPreface(start, p)
		drops.Add(why)
		_, o := table.TicketBind(start, q, home)
		drops.Add(o.Drop)
		if o.Answer != nil {
			t.Fatal("a forged bind is answered")
		}
	}
	if mac, limit := drops.Count(drop.WrongMAC), drops.Count(drop.Limit); mac != 2*MaxTicketTries || limit != 2*(flood-MaxTicketTries) {
		t.Errorf("%d were looked at, %d not", mac, limit)
	}
	if table.Len()+len(table.tickets.perAddress)+len(table.tickets.spent)+len(table.sources) != 0 {
		t.Errorf("left behind: %d sessions, %+v", table.Len(), table.tickets)
	}
	next := start.Add(time.Second)
	if _, why := take(t, table, next, meet(key, ticketOf(key, "bo"), 0, 1), home); why != drop.None {
		t.Errorf("a true one in the next second: %v", why)
	}
}

func TestTicketGoesOnAfterARestart(t *testing.T) {
	kernel := newMemory()
	table, key := ticketTable(func(l *Limits) { l.Packet = packetLimits(kernel).Packet })
	id := ticketOf(key, "bo")
	if _, why := take(t, table, start, meet(key, id, 1, 7), home); why != drop.None {
		t.Fatal(why)
	}
	next, adopted := mustRestart(t, kernel) // an hour later
	if len(adopted) != 1 || !adopted[0].Ticket() || adopted[0].Portals != [2]string{} {
		t.Fatalf("adopted %+v", adopted)
	}
	if got := next.Expired(ends); len(got) != 1 {
		t.Error("it outlives its ticket")
	}
	if why := next.Prove(start, meet(key, id, 1, 7), home, 0); why != drop.Replayed {
		t.Errorf("what was captured before the restart: %v", why)
	}
	if why := next.Prove(start, meet(key, id, 1, 8), home, 0); why != drop.None {
		t.Errorf("the next one: %v", why)
	}
	next.End(id)
	if next.tickets.sessions != 0 || len(next.tickets.perAddress) != 0 {
		t.Errorf("left behind: %+v", next.tickets)
	}
}
