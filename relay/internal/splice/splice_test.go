package splice

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func TestBothDirectionsAndHalfCloseAreCarried(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	forth, back := noise(5<<20), noise(3<<20+17)
	// The first bytes travel with the preface, before the other leg is there.
	a := g.dial(m.address, append(m.preface(0, 7), forth[:100]...))
	b := g.dial(g.shared, m.preface(1, 7)) // either port will do
	go func() {
		a.Write(forth[100:])
		a.CloseWrite()
	}()
	g.wantRead("forth", b, forth)
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: read %d bytes, %v; want EOF", n, err)
	}
	go func() { // the other half still goes
		b.Write(back)
		b.CloseWrite()
	}()
	g.wantRead("back", a, back)
	if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: read %d bytes, %v; want EOF", n, err)
	}
	g.await("the pair is over", func() bool { return g.Pairs() == 0 })
	want := lease.Traffic{uint64(len(forth)), uint64(len(back))}
	if got := g.Traffic(m.ID); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
	if got := m.end(); got != want {
		t.Errorf("counted at the end %v, want %v", got, want)
	}
}

func TestResetIsCarriedThrough(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	for n, what := range []string{"leg 0 resets", "leg 1 resets"} {
		c := [2]*net.TCPConn{}
		c[0], c[1] = m.join(uint16(n))
		c[1-n].Write([]byte("x"))
		g.wantRead("first byte", c[n], []byte("x"))
		c[n].SetLinger(0)
		c[n].Close()
		wantReset(t, what, c[1-n])
	}
	a, b := m.join(2)
	a.CloseWrite()
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	a.SetLinger(0)
	a.Close()
	g.await("the pairs are over, though nothing was sent", func() bool { return g.Pairs() == 0 })
	if _, err := b.Write([]byte("x")); err == nil { // its read has ended already
		t.Error("leg 0 reset after its clean end: leg 1 can still write")
	}
}

func TestSlowReaderHoldsBackTheWriterAndLosesNothing(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	a, b := m.join(0)
	data := noise(1 << 20)
	var sent int
	a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		n, err := a.Write(data[sent%len(data):])
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 256<<20 {
		t.Fatalf("%d bytes were taken although nobody reads", sent)
	}
	a.CloseWrite()
	got := 0
	buf := make([]byte, 1<<16)
	for {
		n, err := b.Read(buf)
		for i := 0; i < n; { // compare with the pattern that repeats
			at := (got + i) % len(data)
			k := min(n-i, len(data)-at)
			if !bytes.Equal(buf[i:i+k], data[at:at+k]) {
				t.Fatalf("wrong bytes from %d on", got+i)
			}
			i += k
		}
		got += n
		if err != nil {
			break
		}
	}
	if got != sent {
		t.Errorf("%d bytes arrived of %d", got, sent)
	}
}

func TestUnprovenConnectionsAreClosedWithoutAnAnswer(t *testing.T) {
	g := newRig(t, nil)
	m, other := g.session(), g.session()
	used := m.preface(0, 0)
	g.dial(m.address, used)
	g.await("the leg waits", func() bool { return g.Waiting().Legs == 1 })

	flipped := m.preface(0, 1)
	flipped[63] ^= 1
	foreign := leg.NewPreface(leg.ID{Session: m.ID, Leg: 1}).AppendTo(nil, m.secrets[0])
	for _, c := range []struct {
		what    string
		address string
		first   []byte
		why     drop.Reason
	}{
		{"wrong MAC", m.address, flipped, drop.WrongMAC},
		{"the other leg's secret", m.address, foreign, drop.WrongMAC},
		{"replay", m.address, used, drop.Replayed},
		{"replay at the shared port", g.shared, used, drop.Replayed},
		{"another session's port", other.address, m.preface(0, 1), drop.UnknownSession},
		{"no session", g.shared, (&meeting{}).preface(0, 0), drop.UnknownSession},
		{"HTTP", g.shared, []byte("GET / HTTP/1.1\r\nHost: relay.example\r\nUser-Agent: something longer than a preface\r\n\r\n"), drop.Malformed},
		{"zeros", m.address, make([]byte, 64), drop.Malformed},
		{"TLS where there is none", m.address, append([]byte{0x16, 3, 1}, make([]byte, 61)...), drop.Malformed},
	} {
		before := g.cfg.Drops.Count(c.why)
		g.wantClosed(c.what, g.dial(c.address, c.first), c.why, before)
	}
	short := g.dial(m.address, []byte("SSH-2.0-x\r\n"))
	before := g.cfg.Drops.Count(drop.Malformed)
	short.CloseWrite()
	g.wantClosed("a short banner", short, drop.Malformed, before)
	if legs := g.Waiting().Legs; legs != 1 {
		t.Errorf("%d legs wait, want the one that proved itself", legs)
	}
}

func TestJoinedConnectionIsNotJoinedAgain(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	first := m.preface(0, 0)
	a, b := g.dial(m.address, first), g.dial(m.address, m.preface(1, 0))
	a.Write([]byte("x"))
	g.wantRead("first byte", b, []byte("x"))
	g.wantClosed("replay", g.dial(m.address, first), drop.Joined, 0)
	g.wantClosed("new preface, same connection", g.dial(m.address, m.preface(1, 0)), drop.Joined, 1)
	b.Write([]byte("y"))
	g.wantRead("the pair still works", a, []byte("y"))
}

func TestNewDialReplacesAWaitingLeg(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	old := g.dial(m.address, m.preface(0, 0))
	g.await("the leg waits", func() bool { return g.Waiting().Legs == 1 })
	anew := g.dial(m.address, m.preface(0, 0))
	wantReset(t, "the older one", old)
	b := g.dial(m.address, m.preface(1, 0))
	b.Write([]byte("x"))
	g.wantRead("the newer one", anew, []byte("x"))
}

func TestSlowHandshakeIsCutByItsTotalTime(t *testing.T) {
	g := newRig(t, nil, func(r *Relay) { r.handshake = 200 * time.Millisecond })
	m := g.session()
	c := g.dial(m.address, nil)
	p, began := m.preface(0, 0), time.Now()
	tick := time.NewTicker(20 * time.Millisecond) // 64 bytes would take 1.3 s
	defer tick.Stop()
	var err error
	for i := 0; i < len(p) && err == nil; i++ {
		<-tick.C
		_, err = c.Write(p[i : i+1])
	}
	g.wantClosed("a byte at a time", c, drop.HandshakeTimeout, 0)
	if took := time.Since(began); took > time.Second {
		t.Errorf("closed after %v", took)
	}
}

func TestWaitingLegIsClosedAfterItsTime(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	c := g.dial(m.address, m.preface(0, 0))
	g.await("the leg waits", func() bool { return g.Waiting().Legs == 1 })
	g.pass(WaitTimeout - time.Second)
	if n := g.Waiting().Legs; n != 1 {
		t.Fatal("closed early")
	}
	g.pass(time.Second)
	wantReset(t, "the leg", c)
	if n := g.Waiting().Legs; n != 0 || g.cfg.Drops.Count(drop.WaitTimeout) != 1 {
		t.Errorf("%d wait, %d counted", n, g.cfg.Drops.Count(drop.WaitTimeout))
	}
}

func TestOldestWaitingLegMakesRoom(t *testing.T) {
	g := newRig(t, nil, func(r *Relay) { r.waiting.room = 3 })
	m := g.session()
	var c []*net.TCPConn
	for n := range 4 {
		c = append(c, g.dial(m.address, m.preface(0, uint16(n))))
		g.await("it waits", func() bool { return g.Waiting().Legs == min(n+1, 3) && len(c) == n+1 })
		if n < 3 {
			continue
		}
		wantReset(t, "the oldest", c[0])
	}
	for n := 1; n < 4; n++ {
		b := g.dial(m.address, m.preface(1, uint16(n)))
		b.Write([]byte("x"))
		g.wantRead("one that still waited", c[n], []byte("x"))
	}
	if got := g.cfg.Drops.Count(drop.Limit); got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}

func TestSessionJoinsALimitedNumberOfConnections(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	for n := range uint16(MaxPairs) {
		m.join(n)
	}
	g.await("all are joined", func() bool { return g.Pairs() == MaxPairs })
	a := g.dial(m.address, m.preface(0, MaxPairs))
	g.await("one more leg waits", func() bool { return g.Waiting().Legs == 1 })
	g.wantClosed("and its other", g.dial(m.address, m.preface(1, MaxPairs)), drop.Limit, 0)
	a.Close()
}

func TestIdlePairIsResetAndABusyOneIsNot(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	idle, _ := m.join(0)
	a, b := m.join(1)
	g.await("both are joined", func() bool { return g.Pairs() == 2 })
	for range 6 {
		a.Write([]byte("x"))
		g.wantRead("busy", b, []byte("x"))
		g.await("the byte is counted", func() bool { return g.Traffic(m.ID) != lease.Traffic{} })
		g.pass(15 * time.Second)
	}
	wantReset(t, "the idle one", idle)
	a.Write([]byte("y"))
	g.wantRead("busy", b, []byte("y"))
}

func TestEndOfSessionResetsItsLegs(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	a, b := m.join(0)
	waits := g.dial(m.address, m.preface(0, 1))
	g.await("joined and waiting", func() bool { return g.Pairs() == 1 && g.Waiting().Legs == 1 })
	m.end()
	wantReset(t, "leg 0", a)
	wantReset(t, "leg 1", b)
	wantReset(t, "the waiting leg", waits)
	if c, err := net.Dial("tcp", m.address); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	g.wantClosed("after the end", g.dial(g.shared, m.preface(0, 2)), drop.UnknownSession, 0)
	if n := g.Waiting().Legs; n != 0 || g.Pairs() != 0 {
		t.Errorf("%d wait, %d pairs", n, g.Pairs())
	}
}

func TestSilentConnectionsDoNotKeepARealOneOut(t *testing.T) {
	g := newRig(t, nil)
	m := g.session()
	for range 250 { // 200 of one prefix are let wait
		c, err := net.Dial("tcp", g.shared)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	began := time.Now()
	a, b := m.join(0)
	a.Write([]byte("x"))
	g.wantRead("first byte", b, []byte("x"))
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	g.await("the oldest are closed", func() bool { return g.cfg.Drops.Count(drop.Evicted) >= 50 })
	if n := g.Waiting().Unproven; n > 200 {
		t.Errorf("%d unproven connections", n)
	}
}

func TestLoopbackIsRefusedWhereItIsNotAllowed(t *testing.T) {
	g := newRig(t, nil, func(r *Relay) { r.cfg.Sources.AllowLoopback = false })
	m := g.session()
	g.wantClosed("a leg from loopback", g.dial(m.address, m.preface(0, 0)), drop.ForbiddenSource, 0)
}

func TestSessionsLeaveNothingBehind(t *testing.T) {
	g := newRig(t, nil)
	// Dials are the test's; what they leave in the runtime is there before.
	g.dial(g.shared, nil).Close()
	g.await("the dial is refused", func() bool { return g.cfg.Drops.Count(drop.Malformed) == 1 })
	fds, routines := descriptors(t), runtime.NumGoroutine()
	count := 2000
	if testing.Short() {
		count = 200
	}
	for range count {
		m := g.session()
		a, b := m.join(0)
		a.Write([]byte("ping"))
		g.wantRead("forth", b, []byte("ping"))
		b.Write([]byte("pong"))
		g.wantRead("back", a, []byte("pong"))
		if got, want := m.end(), (lease.Traffic{4, 4}); got != want {
			t.Fatalf("counted %v, want %v", got, want)
		}
		a.Close()
		b.Close()
	}
	g.await("descriptors are back", func() bool { return descriptors(t) == fds })
	g.await("goroutines are back", func() bool { return runtime.NumGoroutine() <= routines })
	if n := g.cfg.Leases.Len(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	g.stop()
	if n := runtime.NumGoroutine(); n > routines {
		t.Errorf("%d goroutines after the end, %d before", n, routines)
	}
}
