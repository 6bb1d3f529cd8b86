// Package kernel is the relay's use of a kernel plane: the TCP connections of
// packet mode, and the few packets that the kernel's program leaves to the
// daemon.
//
//	program --Handshake--> answer.Machine --Send, Forward--> raw sockets
//	                                      --Install--------> the plane's table
//	        --Forward----> rewritten, by way of raw sockets, where the program
//	                       knew no neighbour or route
//	        --TooBig-----> ICMP to the sender
//
// A Relay owns the pairs of TCP in the plane's table: it adds them as
// handshakes are done, removes them when their connections have ended or expired,
// and adopts those of an earlier process. UDP pairs are package udp's, also there.
package kernel

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/answer"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

const (
	// closedTime is how long a connection that seems to have ended must be silent
	// before its pair is removed. Anybody who guesses its ports can make it seem so,
	// and the ends of a living one, which know better, ask for each other at least
	// every 280 s.
	closedTime = 330 * time.Second
	// maxPending is how many handshakes may be under way at once.
	maxPending = 16384
	// maxQuarantined is how many 4-tuples rest at once.
	maxQuarantined = 1 << 16
)

// Plane is what a Relay needs of a bpf.Kernel.
type Plane interface {
	bpf.Plane
	Run(ctx context.Context, handle func(bpf.Event)) error
	RemoveBatch(pairs []bpf.Pair) ([]bpf.Counters, error)
	Closed() []bpf.Ended
	Other(protocol bpf.Protocol, leg bpf.Leg) (bpf.Leg, bool)
}

// Sender sends IP packets past the system's own connections, and counts what
// cannot be sent. A rawip.Sender is one.
type Sender interface {
	// Send, Forward and MTU are those of answer.Edge.
	Send(packet []byte)
	Forward(packet []byte, to bpf.Leg, mss uint16)
	MTU(dest netip.Addr) int
	// TooBig tells the sender of a packet that the way on takes at most mtu bytes.
	TooBig(packet []byte, mtu int)
}

// Config is what a Relay works with. Up to Now, all fields are needed.
type Config struct {
	Plane    Plane
	Sender   Sender
	Leases   *lease.Table
	Capacity int                 // sessions: as many flows of TCP
	Expired  func(pair bpf.Pair) // a UDP pair that the plane reports
	Drops    *drop.Counters
	Log      *slog.Logger
	Now      func() time.Time

	// Packets and Bytes limit what each connection carries in one direction in a
	// second; bytes are of payload. 0: no limit.
	Packets, Bytes uint64
}

// Relay holds the TCP connections of all sessions that the kernel forwards.
type Relay struct {
	cfg     Config
	limits  atomic.Pointer[bpf.Terms] // Packets and Bytes of Config, as they are now
	machine *answer.Machine

	mu       sync.Mutex // guards the following
	sessions map[wire.SessionID]*session

	pastMu sync.Mutex   // guards the following
	past   bpf.Counters // by pairs that are gone
}

// session is one session's pairs.
type session struct {
	lifetime time.Duration
	pairs    map[bpf.Pair]struct{}
	carried  lease.Traffic // by pairs that are gone
	joined   int           // pairs since the session was opened
}

// New returns a Relay without sessions.
func New(cfg Config) *Relay {
	r := &Relay{cfg: cfg, sessions: make(map[wire.SessionID]*session)}
	r.machine = answer.New(answer.Config{
		Expect: cfg.Leases.Expect, Edge: edge{cfg.Sender, r}, Drops: cfg.Drops,
		Limits: answer.Limits{Pending: maxPending, Flows: cfg.Capacity, Quarantined: maxQuarantined},
	})
	r.SetLimits(cfg.Packets, cfg.Bytes)
	return r
}

// SetLimits changes Packets and Bytes of Config, for connections that begin from now on.
func (r *Relay) SetLimits(packets, bytes uint64) {
	r.limits.Store(&bpf.Terms{Packets: packets, Bytes: bytes})
}

// Run serves until ctx is cancelled. What the kernel forwards stays.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ticking sync.WaitGroup
	ticking.Go(func() { r.tick(ctx) })
	err := r.cfg.Plane.Run(ctx, r.handle)
	cancel()
	ticking.Wait()
	return err
}

// tick keeps the machine's time.
func (r *Relay) tick(ctx context.Context) {
	t := time.NewTicker(answer.Interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.machine.Tick(r.cfg.Now())
		case <-ctx.Done():
			return
		}
	}
}

// Open lets a session's legs come in in packet mode. carried is what the session
// has settled before a restart (see lease.Table.Settle).
func (r *Relay) Open(s lease.Session, carried lease.Traffic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s.ID] = &session{lifetime: s.Lifetime, pairs: make(map[bpf.Pair]struct{}), carried: carried}
}

// Adopt takes over the pairs of TCP that the plane's table holds from an earlier
// process, once their sessions are open, and removes those of no session. It
// returns how many it took.
func (r *Relay) Adopt(pairs []bpf.Pair) (taken int) {
	for _, p := range pairs {
		e, why := r.cfg.Leases.Expect(r.cfg.Now(), p.A.Remote.Addr(), p.A.Port)
		known := why == drop.None
		r.mu.Lock()
		s := r.sessions[e.ID]
		if known = known && s != nil; known {
			s.pairs[p] = struct{}{}
			s.joined++
		}
		r.mu.Unlock()
		if !known {
			r.remove([]bpf.Pair{p})
			continue
		}
		r.machine.Adopt(answer.Flow{Session: e.ID, Pair: p})
		taken++
	}
	return taken
}

// Close ends a session and what it has in the kernel. It returns what its TCP
// connections carried there.
func (r *Relay) Close(id wire.SessionID) lease.Traffic {
	r.machine.End(r.cfg.Now(), id)
	r.mu.Lock()
	s := r.sessions[id]
	delete(r.sessions, id)
	r.mu.Unlock()
	if s == nil {
		return lease.Traffic{}
	}
	pairs := make([]bpf.Pair, 0, len(s.pairs))
	for p := range s.pairs {
		pairs = append(pairs, p)
	}
	return s.carried.Plus(r.remove(pairs))
}

// remove takes pairs out of the kernel and returns what they carried.
func (r *Relay) remove(pairs []bpf.Pair) (carried lease.Traffic) {
	if len(pairs) == 0 {
		return carried
	}
	counters, err := r.cfg.Plane.RemoveBatch(pairs)
	if err != nil {
		r.cfg.Log.Error("pairs not removed from the kernel: they end with their lifetime", "pairs", len(pairs), "error", err)
	}
	r.pastMu.Lock()
	defer r.pastMu.Unlock()
	for _, c := range counters {
		carried = carried.Plus(payload(c))
		r.past = r.past.Plus(c)
	}
	return carried
}

// Sweep removes what has ended. It is called once a second or so.
func (r *Relay) Sweep() {
	for _, e := range r.cfg.Plane.Closed() {
		switch {
		case e.Protocol != bpf.TCP:
			r.cfg.Expired(e.Pair)
		case e.Expired || e.Idle >= closedTime:
			r.end(e.Pair)
		}
	}
}

// end removes a pair whose connection has ended.
func (r *Relay) end(p bpf.Pair) {
	carried := r.remove([]bpf.Pair{p})
	id := r.machine.Closed(r.cfg.Now(), p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[id]; s != nil {
		delete(s.pairs, p)
		s.carried = s.carried.Plus(carried)
	}
}

// Traffic returns what a session's TCP connections have carried in the kernel.
func (r *Relay) Traffic(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[id]
	if s == nil {
		return lease.Traffic{}
	}
	total := s.carried
	for p := range s.pairs {
		if c, err := r.cfg.Plane.Counters(p); err == nil {
			total = total.Plus(payload(c))
		}
	}
	return total
}

// Total returns what the kernel has carried of the TCP connections of all sessions,
// those that have ended included; what is ending may be missing for a moment.
func (r *Relay) Total() bpf.Counters {
	r.pastMu.Lock()
	total := r.past
	r.pastMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		for p := range s.pairs {
			if c, err := r.cfg.Plane.Counters(p); err == nil {
				total = total.Plus(c)
			}
		}
	}
	return total
}

// Settled is Traffic without what the kernel still counts: see
// lease.Table.Settle.
func (r *Relay) Settled(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[id]; s != nil {
		return s.carried
	}
	return lease.Traffic{}
}

// Joined returns how many connections of a session the kernel forwards, and how
// many it has forwarded since the session was opened, those included.
func (r *Relay) Joined(id wire.SessionID) (now, ever int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[id]; s != nil {
		return len(s.pairs), s.joined
	}
	return 0, 0
}

// Counts returns how many handshakes are under way and how many TCP connections
// the kernel forwards.
func (r *Relay) Counts() (pending, flows int) { return r.machine.Counts() }

func payload(c bpf.Counters) lease.Traffic { return lease.Traffic{c.FromA.Bytes, c.FromB.Bytes} }

// install puts a flow into the kernel whose handshake is done.
func (r *Relay) install(f answer.Flow) error {
	r.mu.Lock()
	s := r.sessions[f.Session]
	r.mu.Unlock()
	if s == nil {
		return fmt.Errorf("install a flow: session %v is over", f.Session)
	}
	terms := *r.limits.Load()
	terms.Lifetime = s.lifetime
	if err := r.cfg.Plane.Add(f.Pair, terms); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[f.Session] != s || !r.cfg.Leases.Installed(r.cfg.Now(), f.Session) {
		r.remove([]bpf.Pair{f.Pair})
		return fmt.Errorf("install a flow: session %v is over", f.Session)
	}
	s.pairs[f.Pair] = struct{}{}
	s.joined++
	return nil
}
