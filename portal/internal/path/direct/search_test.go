package direct

import (
	"container/heap"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// What a NAT keeps apart, or lets in (RFC 4787 sections 4.1 and 5).
type dependence int

const (
	independent dependence = iota // of whom a packet goes to, or comes from
	byAddress
	byPort // and address
)

// nat is what a portal is behind; nil: nothing.
type nat struct {
	mapping, filtering dependence
	public             netip.Addr
	maps               map[netip.AddrPort]uint16 // ports outside, by what mapping keeps apart
	opened             map[netip.AddrPort]bool   // by what filtering keeps apart
	used               uint16
}

// of returns what an address counts as.
func (d dependence) of(a netip.AddrPort) netip.AddrPort {
	switch d {
	case independent:
		return netip.AddrPort{}
	case byAddress:
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// out returns where a packet seems to come from.
func (n *nat) out(to netip.AddrPort) netip.AddrPort {
	outside, ok := n.maps[n.mapping.of(to)]
	if !ok {
		n.used++
		outside = 40000 + n.used
		n.maps[n.mapping.of(to)] = outside
	}
	n.opened[n.filtering.of(to)] = true
	return netip.AddrPortFrom(n.public, outside)
}

// in reports whether a packet passes: its port is open, to whom it comes from.
func (n *nat) in(from, to netip.AddrPort) bool {
	for whom, outside := range n.maps {
		if outside != to.Port() || n.mapping != independent && whom != n.mapping.of(from) && n.filtering != independent {
			continue
		}
		return n.opened[n.filtering.of(from)]
	}
	return false
}

// end is one portal of a world.
type end struct {
	search
	host netip.AddrPort
	nat  *nat
	open time.Time // since when a way is open; zero: none is
	sent map[netip.AddrPort]int
}

// world is two portals and what is on its way between them. Time is the test's.
type world struct {
	now    time.Time
	delay  time.Duration
	ends   [2]*end
	events events
	order  int
}

type event struct {
	at    time.Time
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now.Add(d), w.order, do})
}

// relay is whom the portals have told their addresses to, through their NATs.
var relay = netip.MustParseAddrPort("198.51.100.1:20000")

func newWorld(a, b *nat) *world {
	w := &world{now: time.Unix(1_000_000, 0), delay: 20 * time.Millisecond}
	for i, n := range []*nat{a, b} {
		e := &end{search: search{client: i == 0, quota: newQuota()}, nat: n, sent: make(map[netip.AddrPort]int)}
		e.host = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 7}), 5000)
		if n == nil {
			e.host = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 5000)
		} else {
			n.public = netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})
			n.maps, n.opened = make(map[netip.AddrPort]uint16), make(map[netip.AddrPort]bool)
		}
		w.ends[i] = e
	}
	return w
}

// candidates is what a portal tells the other.
func (e *end) candidates() (list []wire.Candidate) {
	if e.nat != nil {
		list = append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: e.nat.out(relay)})
	}
	return append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: e.host})
}

// meet has both tell each other their addresses, the second a while after the first.
func (w *world) meet(apart time.Duration) {
	for i, e := range w.ends {
		list := e.candidates()
		w.after(time.Duration(i)*apart+w.delay, func() {
			w.ends[1-i].list(list, w.now)
			w.act(1 - i)
		})
	}
}

// act sends what is due and comes back when the next is.
func (w *world) act(i int) {
	e := w.ends[i]
	out, again := e.step(w.now)
	for _, o := range out {
		e.sent[o.to]++
		w.send(i, o.to, o.token, false)
	}
	w.after(max(again.Sub(w.now), time.Microsecond), func() { w.act(i) })
}

// send has a packet travel from one portal to an address, through both NATs.
func (w *world) send(i int, to netip.AddrPort, token uint64, answer bool) {
	from := w.ends[i].host
	if n := w.ends[i].nat; n != nil {
		from = n.out(to)
	}
	other := w.ends[1-i]
	w.after(w.delay, func() {
		switch {
		case other.nat == nil && to != other.host:
			return
		case other.nat != nil && (to.Addr() != other.nat.public || !other.nat.in(from, to)):
			return
		}
		w.take(1-i, from, token, answer)
	})
}

func (w *world) take(i int, from netip.AddrPort, token uint64, answer bool) {
	e := w.ends[i]
	if !answer {
		if e.ask(from, w.now) {
			w.send(i, from, token, true)
		}
	} else if e.answer(from, token, from, w.now) != nil && e.open.IsZero() {
		e.open = w.now
	}
	w.act(i)
}

func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// kind is a kind of NAT; nil: none.
type kind struct {
	name               string
	mapping, filtering dependence
}

func (k *kind) String() string {
	if k == nil {
		return "none"
	}
	return k.name
}

func TestNATsThatCanBeOpenedAreOpenedWithinTwoRoundTrips(t *testing.T) {
	kinds := []*kind{
		nil, {"full cone", independent, independent}, {"address-restricted", independent, byAddress},
		{"port-restricted", independent, byPort}, {"symmetric", byPort, byPort},
	}
	symmetric := func(k *kind) bool { return k != nil && k.mapping == byPort }
	made := func(k *kind) *nat {
		if k == nil {
			return nil
		}
		return &nat{mapping: k.mapping, filtering: k.filtering}
	}
	for _, a := range kinds {
		for _, b := range kinds {
			// A symmetric NAT shows the other a port that nobody knows before: the other
			// must let in whatever port it is.
			open := true
			for _, x := range [][2]*kind{{a, b}, {b, a}} {
				if symmetric(x[0]) && x[1] != nil && x[1].filtering == byPort {
					open = false
				}
			}
			// One that hears of the other much later finds it asking slowly.
			for _, apart := range []time.Duration{0, 5 * time.Millisecond, 30 * time.Millisecond, 10 * time.Minute} {
				w := newWorld(made(a), made(b))
				w.meet(apart)
				w.run(apart + pauses[len(pauses)-1] + time.Minute)
				name := fmt.Sprintf("%v and %v, %v apart", a, b, apart)
				for i, e := range w.ends {
					took := e.open.Sub(time.Unix(1_000_000, 0)) - apart - w.delay // since both have the lists
					switch {
					case e.open.IsZero() != !open:
						t.Errorf("%s: side %d open %t, want %t", name, i, !e.open.IsZero(), open)
					case open && (apart < time.Minute || !symmetric(a) && !symmetric(b)) && took > 2*2*w.delay+pauses[0]:
						t.Errorf("%s: side %d is open after %v more, the round trip is %v", name, i, took, 2*w.delay)
					}
				}
			}
		}
	}
}

// What does not answer is asked ever more rarely, and never given up; nobody gets more
// than a peer's share.
func TestSearchSlowsDownAndGoesOn(t *testing.T) {
	w := newWorld(&nat{mapping: byPort, filtering: byPort}, &nat{mapping: byPort, filtering: byPort})
	w.meet(0)
	w.run(time.Second + w.delay)
	for a, n := range w.ends[0].sent {
		if n > perSecond {
			t.Errorf("%d probes to %v in a second", n, a)
		}
	}
	w.run(10 * time.Minute)
	for a, n := range w.ends[0].sent {
		if n < burst+7 || n > burst+10 {
			t.Errorf("%d probes to %v in ten minutes", n, a)
		}
	}
	w.run(24 * time.Hour)
	for a, n := range w.ends[0].sent {
		if n < perAddress+20 || n > perAddress+25 {
			t.Errorf("%d probes to %v in a day", n, a)
		}
	}
	before := w.ends[0].sent[w.ends[1].host]
	w.ends[0].quota.refill()
	w.ends[0].restart(w.now)
	w.act(0)
	w.run(2 * time.Second)
	if got := w.ends[0].sent[w.ends[1].host] - before; got < burst {
		t.Errorf("%d probes after this portal's network has changed", got)
	}
}

// An address that has answered, and is not used because another carries, costs nearly
// nothing; when that one is lost it is asked at once.
func TestReserveIsSeldomAskedWhileAnotherCarries(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := search{client: true, quota: newQuota()}
	reserve := netip.MustParseAddrPort("203.0.113.1:2000")
	s.list([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: reserve}}, now)
	inADay := func() (n int) {
		for end := now.Add(24 * time.Hour); now.Before(end); {
			out, again := s.step(now)
			for _, o := range out {
				n++
				s.answer(o.to, o.token, netip.AddrPort{}, now)
			}
			now = again
		}
		return n
	}
	if n := inADay(); n < 280 {
		t.Errorf("%d probes in a day in which nothing carries", n)
	}
	s.carry(true, now)
	if n := inADay(); n < 20 || n > 40 {
		t.Errorf("%d probes in a day while another address carries", n)
	}
	s.carry(false, now)
	if out, _ := s.step(now); len(out) != 1 {
		t.Errorf("%d probes when that was lost", len(out))
	}
}

// Ways that come and go take nothing from the quota: a hundred losses leave as much for the addresses that have never
// answered as there was.
func TestLossesTakeNothingFromTheQuota(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := search{client: true, quota: newQuota()}
	good, never := netip.MustParseAddrPort("203.0.113.1:2000"), netip.MustParseAddrPort("203.0.113.2:2000")
	s.list([]wire.Candidate{{Transport: wire.CandidateUDP, Addr: good}, {Transport: wire.CandidateUDP, Addr: never}}, now)
	asked := map[netip.AddrPort]int{}
	for range 100 {
		for range 3 {
			out, _ := s.step(now)
			for _, o := range out {
				if asked[o.to]++; o.to == good {
					s.answer(o.to, o.token, netip.AddrPort{}, now)
				}
			}
			now = now.Add(time.Second)
		}
		s.lost(now)
	}
	if asked[good] < 100 || asked[never] > len(pauses) {
		t.Errorf("in 100 losses the address that answers was asked %d times, the one that never does %d times", asked[good], asked[never])
	}
}

// T44: a portal's list may be a lie from first to last, and come again and again.
func TestVictimOfALyingPeerGetsAFewProbesInAll(t *testing.T) {
	s := search{quota: newQuota()}
	now := time.Unix(1_000_000, 0)
	victim := netip.MustParseAddr("203.0.113.99")
	sent := 0
	for round := range 5000 {
		var list []wire.Candidate
		for i := range 2 * wire.MaxCandidates { // more than any list may have
			list = append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: netip.AddrPortFrom(victim, uint16(2000+(16*round+i)%60000))})
		}
		if round%10 == 0 { // the peer reconnects: a new tunnel, of the same peer
			s = search{quota: s.quota}
		}
		s.list(list, now)
		s.ask(netip.AddrPortFrom(victim, uint16(3000+round)), now) // and its probes seem to come from there
		for range 20 {
			out, _ := s.step(now)
			sent += len(out)
			now = now.Add(10 * time.Millisecond)
		}
	}
	took := now.Sub(time.Unix(1_000_000, 0))
	if most := 16*perAddress + int(took/totalRefill); sent > most || sent < 16*perAddress {
		t.Errorf("the victim got %d probes in %v, want %d", sent, took, most)
	}
	if len(s.quota.spent) > maxSpent || len(s.pairs) > wire.MaxCandidates+maxHeard {
		t.Errorf("%d addresses remembered, %d searched", len(s.quota.spent), len(s.pairs))
	}
}

// An address that has answered costs nothing: it is the peer's.
func TestQuotaIsForThoseWhoNeverAnswer(t *testing.T) {
	q := newQuota()
	now := time.Unix(1_000_000, 0)
	a := netip.MustParseAddrPort("203.0.113.1:2000")
	for round := range 100 {
		for range perAddress {
			if !q.spend(a, now) {
				t.Fatalf("round %d: nothing left", round)
			}
		}
		if q.spend(a, now) {
			t.Fatalf("round %d: more than %d probes to an address that has not answered", round, perAddress)
		}
		q.answered(a, now)
	}
	if !q.full(now) {
		t.Error("something is spent")
	}
	// What has come back with time is not given back once more by an answer.
	other := netip.MustParseAddrPort("203.0.113.2:2000")
	for range perAddress {
		q.spend(a, now)
	}
	later := now.Add(10 * totalRefill)
	for range perAddress {
		q.spend(other, later)
	}
	if q.answered(a, later); q.total.spent != perAddress {
		t.Errorf("%d are spent, want those of the other address: %d", q.total.spent, perAddress)
	}
	q.refill()
	for range perAddress {
		q.spend(a, now)
	}
	for i, want := range []bool{true, false} {
		if got := q.spend(a, now.Add(addressRefill)); got != want {
			t.Errorf("probe %d an hour later: %t", i, got)
		}
	}
	if q.full(now.Add(addressRefill)) || !q.full(now.Add(perAddress*2*addressRefill)) {
		t.Error("full too early, or never")
	}
}

func TestWhatIsNoHostOfANetworkIsNeverProbed(t *testing.T) {
	b := bounds{
		own:   []netip.AddrPort{netip.MustParseAddrPort("192.168.1.7:5000")},
		infra: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
	}
	for addr, want := range map[string]bool{
		"203.0.113.1:1024": true, "10.0.0.1:40000": true, "[2001:db8::1]:2000": true, "[fd00::1]:2000": true, "192.168.1.7:5001": true,
		"203.0.113.1:1023": false, "127.0.0.1:2000": false, "0.0.0.0:2000": false, "0.0.0.1:2000": false, "224.0.0.251:5353": false,
		"255.255.255.255:2000": false, "169.254.169.254:8080": false, "169.254.1.1:2000": false, "100.100.100.200:8080": false, "240.0.0.1:2000": false,
		"[::]:2000": false, "[::1]:2000": false, "[::ffff:127.0.0.1]:2000": false, "[::7f00:1]:2000": false, "[64:ff9b::7f00:1]:2000": false,
		"[2002:7f00:1::]:2000": false, "[fe80::1]:2000": false, "[ff02::1]:2000": false, "[fd00:ec2::254]:8080": false, "[fec0::1]:2000": false,
		"[64:ff9b:1::7f00:1]:2000": false, "[::ffff:a9fe:a9fe]:8080": false,
		"192.168.1.7:5000": false, "198.51.100.1:20000": false,
	} {
		a := netip.MustParseAddrPort(addr)
		s := search{bounds: b, quota: newQuota()}
		why := b.refuses(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		if (why == "") != want {
			t.Errorf("%s is refused: %q", addr, why)
		}
		now := time.Now()
		s.list([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: a}}, now)
		answered := s.ask(a, now)
		if out, _ := s.step(now); len(out) > 0 != want || answered != want && a.Addr() == a.Addr().Unmap() {
			t.Errorf("%s: %d probes, answered %t, want %t", addr, len(out), answered, want)
		}
	}
	b.loopback = true
	b.infra = append(b.infra, netip.MustParseAddr("127.0.0.1")) // a relay, too
	if why := b.refuses(netip.MustParseAddrPort("127.0.0.1:2000")); why != "" {
		t.Errorf("a peer on this machine is not probed: %s", why)
	}
}
