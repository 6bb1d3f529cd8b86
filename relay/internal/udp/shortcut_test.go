package udp

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/lease"
)

// scripted is a kernel plane that carries nothing: the test says what it has
// carried, and what it refuses. As the real one, it tells legs apart by all but
// the relay's address.
type scripted struct {
	mu      sync.Mutex           // guards the following
	refuse  func(bpf.Pair) error // nil: it takes everything
	pairs   map[bpf.Pair]bpf.Terms
	carried map[bpf.Pair]bpf.Counters
	calls   []string
}

func newScripted() *scripted {
	return &scripted{pairs: make(map[bpf.Pair]bpf.Terms), carried: make(map[bpf.Pair]bpf.Counters)}
}

func (*scripted) Name() string { return "scripted" }
func (*scripted) Close() error { return nil }

func (k *scripted) Add(pair bpf.Pair, terms bpf.Terms) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		if err := k.refuse(pair); err != nil {
			return err
		}
	}
	k.calls = append(k.calls, "add "+pair.A.Remote.String())
	if same, ok := k.sameLocked(pair); ok {
		n := k.carried[same]
		delete(k.pairs, same)
		delete(k.carried, same)
		k.carried[pair] = n
	}
	k.pairs[pair] = terms
	return nil
}

func (k *scripted) Remove(pair bpf.Pair) (bpf.Counters, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	pair, ok := k.sameLocked(pair)
	if !ok {
		return bpf.Counters{}, nil
	}
	k.calls = append(k.calls, "remove "+pair.A.Remote.String())
	n := k.carried[pair]
	delete(k.pairs, pair)
	delete(k.carried, pair)
	return n, nil
}

// sameLocked returns the pair of the table that a pair stands for.
func (k *scripted) sameLocked(pair bpf.Pair) (bpf.Pair, bool) {
	name := func(p bpf.Pair) bpf.Pair {
		p.A.Local, p.B.Local = netip.Addr{}, netip.Addr{}
		return p
	}
	for p := range k.pairs {
		if name(p) == name(pair) {
			return p, true
		}
	}
	return bpf.Pair{}, false
}

func (k *scripted) Counters(pair bpf.Pair) (bpf.Counters, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.carried[pair], nil
}

// carry makes the plane have carried so many bytes of a pair that it holds.
func (k *scripted) carry(t *testing.T, pair bpf.Pair, fromA, fromB uint64) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.pairs[pair]; !ok {
		t.Fatalf("the kernel plane does not have %v, but %v", pair, k.pairs)
	}
	k.carried[pair] = bpf.Counters{FromA: bpf.Traffic{Packets: 1, Bytes: fromA}, FromB: bpf.Traffic{Packets: 1, Bytes: fromB}}
}

func (k *scripted) held() map[bpf.Pair]bpf.Terms {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := make(map[bpf.Pair]bpf.Terms)
	for p, t := range k.pairs {
		held[p] = t
	}
	return held
}

// wantCalls checks what changed the plane's table since the last time.
func (k *scripted) wantCalls(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(k.calls, want) {
		t.Errorf("calls %q, want %q", k.calls, want)
	}
	k.calls = nil
}

// pairOf is the pair of two bound portals.
func pairOf(a, b *portal) bpf.Pair {
	return bpf.Pair{Protocol: bpf.UDP, A: legOf(a), B: legOf(b)}
}

func legOf(p *portal) bpf.Leg {
	return bpf.Leg{Remote: p.addr(), Port: p.relay.Port(), Local: p.relay.Addr()}
}

func TestJoinedLegsAreShortCut(t *testing.T) {
	for _, listen := range [][]netip.Addr{{loopback}, nil} {
		k := newScripted()
		g := tunedRig(t, func(c *Config) { c.Listen, c.Kernel, c.Packets, c.Bytes = listen, k, 1000, 1<<20 })
		m := g.session()
		a := m.portal(0, 0, m.at)
		if len(k.held()) != 0 {
			t.Error("a leg alone is in the kernel plane")
		}
		b := m.portal(1, 0, g.shared)
		pair, terms := pairOf(a, b), bpf.Terms{Lifetime: m.Lifetime, Packets: 1000, Bytes: 1 << 20}
		g.await("the kernel plane has it", func() bool { return len(k.held()) == 1 })
		if got, ok := k.held()[pair]; !ok || got != terms || m.Lifetime != time.Minute {
			t.Fatalf("the kernel plane has %v, want %v with %v", k.held(), pair, terms)
		}

		// What it passes goes by the sockets, and both counts are one.
		a.send([]byte("past the kernel"))
		b.want([]byte("past the kernel"))
		g.awaitTraffic(m, lease.Traffic{15, 0})
		k.carry(t, pair, 100, 2000)
		if got := g.Traffic(m.ID); got != (lease.Traffic{115, 2000}) {
			t.Errorf("traffic %v", got)
		}
		if got := g.Settled(m.ID); got != (lease.Traffic{15, 0}) {
			t.Errorf("settled %v, want what the kernel plane does not count", got)
		}
		if got := m.end(); got != (lease.Traffic{115, 2000}) {
			t.Errorf("traffic %v at the end", got)
		}
		if n, _ := g.Shortcuts(); n != 0 || len(k.held()) != 0 {
			t.Errorf("after the end %d pairs, %v", n, k.held())
		}
	}
}

func TestMoveIsAddedBeforeTheOldPairGoes(t *testing.T) {
	k := newScripted()
	g := tunedRig(t, func(c *Config) { c.Listen, c.Kernel = []netip.Addr{loopback}, k })
	m := g.session()
	a, b := m.both(0, m.at)
	k.wantCalls(t, "add "+a.addr().String())
	k.carry(t, pairOf(a, b), 10, 20)

	moved := &portal{g.socket(), g, a.binder, g.shared}
	moved.binder.Start()
	moved.bind()
	k.wantCalls(t, "add "+moved.addr().String(), "remove "+a.addr().String())
	k.carry(t, pairOf(moved, b), 100, 200)
	if got := g.Traffic(m.ID); got != (lease.Traffic{110, 220}) {
		t.Errorf("traffic %v after the move", got)
	}
	if got := g.Settled(m.ID); got != (lease.Traffic{10, 20}) {
		t.Errorf("settled %v after the move", got)
	}

	// A move that it refuses leaves nothing of where the leg was.
	k.mu.Lock()
	k.refuse = func(bpf.Pair) error { return syscall.E2BIG }
	k.mu.Unlock()
	moved.binder.Start()
	again := &portal{g.socket(), g, moved.binder, m.at}
	again.bind()
	k.wantCalls(t, "remove "+moved.addr().String())
	b.send([]byte("in user space"))
	again.want([]byte("in user space"))
	g.awaitTraffic(m, lease.Traffic{110, 233})
}

func TestLegThatMovesToAnotherAddressOfTheRelayIsShortCutAgain(t *testing.T) {
	k := newScripted()
	g := tunedRig(t, func(c *Config) { c.Kernel = k })
	m := g.session()
	a, b := m.both(0, m.at)
	k.carry(t, pairOf(a, b), 10, 20)
	moved := &portal{a.UDPConn, g, a.binder, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), m.Port)}
	moved.binder.Start()
	moved.bind()
	if got := g.Traffic(m.ID); got != (lease.Traffic{10, 20}) {
		t.Errorf("traffic %v after the move", got)
	}
	k.carry(t, pairOf(moved, b), 100, 200)
	if got := m.end(); got != (lease.Traffic{110, 220}) || len(k.held()) != 0 {
		t.Errorf("traffic %v at the end, the kernel plane holds %v", got, k.held())
	}
}

func TestPairThatTheKernelPlaneRefusesStaysInUserSpace(t *testing.T) {
	k, log := newScripted(), new(record)
	g := tunedRig(t, func(c *Config) {
		c.Kernel, c.Log = k, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	refused := 0
	k.refuse = func(bpf.Pair) error {
		if refused++; refused <= 3 {
			return fmt.Errorf("add a pair to the kernel plane: %w", bpf.ErrVersions)
		}
		return fmt.Errorf("add a pair to the kernel plane: update flows: %w", syscall.E2BIG)
	}
	for range 5 {
		m := g.session()
		a, b := m.both(0, m.at)
		a.send([]byte("to b"))
		b.want([]byte("to b"))
		b.send([]byte("to a"))
		a.want([]byte("to a"))
		g.awaitTraffic(m, lease.Traffic{4, 4})
	}
	n, causes := g.Shortcuts()
	if want := map[string]uint64{bpf.ErrVersions.Error(): 3, syscall.E2BIG.Error(): 2}; n != 0 || fmt.Sprint(causes) != fmt.Sprint(want) {
		t.Errorf("%d pairs short cut, refused %v, want %v", n, causes, want)
	}
	if got := strings.Count(log.String(), "stays in user space"); got != 2 || len(g.cfg.Drops.All()) != 0 {
		t.Errorf("%d lines for two causes, drops %v:\n%s", got, g.cfg.Drops.All(), log)
	}
	k.wantCalls(t)
}

func TestLegAtAnUnknownAddressIsNotOffered(t *testing.T) {
	k := newScripted()
	c := newShortcut(k, slog.New(slog.DiscardHandler))
	known := bpf.Leg{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Port: 1, Local: loopback}
	unknown := bpf.Leg{Remote: netip.MustParseAddrPort("192.0.2.2:1"), Port: 1}
	c.add(bpf.Pair{Protocol: bpf.UDP, A: known, B: unknown}, bpf.Terms{})
	c.add(bpf.Pair{Protocol: bpf.UDP, A: unknown, B: known}, bpf.Terms{})
	if len(k.held()) != 0 || c.refused[errNoLocal.Error()] != 2 {
		t.Errorf("taken %v, refused %v", k.held(), c.refused)
	}
}

func TestCausesOfRefusalsAreBounded(t *testing.T) {
	k, log := newScripted(), new(record)
	c := newShortcut(k, slog.New(slog.NewTextHandler(log, nil)))
	pair := bpf.Pair{A: bpf.Leg{Local: loopback}, B: bpf.Leg{Local: loopback}}
	for i := range 1000 {
		k.refuse = func(bpf.Pair) error { return errors.New(fmt.Sprint("cause ", i)) }
		c.add(pair, bpf.Terms{})
	}
	if len(c.refused) != maxCauses+1 || c.refused["other"] != 1000-maxCauses {
		t.Errorf("%d causes: %v", len(c.refused), c.refused)
	}
	if lines := strings.Count(log.String(), "\n"); lines != maxCauses+1 {
		t.Errorf("%d lines", lines)
	}
}

func TestExpiredPairBeginsAnewWhileItsSessionLives(t *testing.T) {
	k := newScripted()
	g := tunedRig(t, func(c *Config) { c.Listen, c.Kernel = []netip.Addr{loopback}, k })
	m := g.session()
	a, b := m.both(0, m.at)
	pair := pairOf(a, b)
	k.wantCalls(t, "add "+a.addr().String())
	k.carry(t, pair, 1, 2)
	g.Renew(pair)
	k.wantCalls(t, "add "+a.addr().String())
	if got := g.Traffic(m.ID); got != (lease.Traffic{1, 2}) {
		t.Errorf("traffic %v", got)
	}

	// Of a pair that no session has, nothing stays.
	orphan := bpf.Pair{Protocol: bpf.UDP, A: legOf(b), B: legOf(a)}
	if err := k.Add(orphan, bpf.Terms{}); err != nil {
		t.Fatal(err)
	}
	g.Renew(orphan)
	k.wantCalls(t, "add "+b.addr().String(), "remove "+b.addr().String())
	m.end()
	g.Renew(pair)
	if held := k.held(); len(held) != 0 {
		t.Errorf("the kernel plane holds %v of an ended session", held)
	}
}

// record is a log.
type record struct {
	mu sync.Mutex // guards the following
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}
