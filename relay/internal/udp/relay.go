// Package udp is the relay's UDP legs in user space. Legs bind with STUN (see
// proto/leg), judged by package lease; between two bound legs packets go as
// they came, in their own sizes and with their ECN bits. Everything else is
// met with silence and counted.
//
// A session's own port is one socket for both its legs. At the shared port
// every bound leg gets a socket of its own, connected to it, so that the kernel
// tells the sessions apart. A few threads read all sockets, each its share: one
// takes what a socket has with one system call and sends it on with another;
// packets of one size that go the same way are handed to the kernel as one
// (UDP_GRO and UDP_SEGMENT, where it has them).
//
// Silence hides which sessions exist, not which ports are open: to a packet at
// a port without a session the system itself answers with ICMP port
// unreachable, unless its firewall drops what comes to the session ports.
//
// A packet that the socket does not take is dropped and counted: nothing is
// queued but up to 8 packets of a leg that wait for the other one's bind.
package udp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/source"
)

// MaxHeld is how many packets of a bound leg are held until the other leg is
// bound.
const MaxHeld = 8

// maxReaders bounds the threads that read, each with buffers of 4 MiB.
const maxReaders = 16

// Config is what a Relay works with. All fields are needed.
type Config struct {
	Listen  []netip.Addr // addresses of all sockets; none: every address of the machine
	Leases  *lease.Table
	Sources *source.Rules
	Drops   *drop.Counters
	Log     *slog.Logger
	Now     func() time.Time
}

// Relay holds the UDP legs of all sessions.
type Relay struct {
	cfg     Config
	plane   *Plane
	readers []*reader
	turn    atomic.Uint32 // which reader gets the next socket

	shared []*socket // set by Share, before Run; none: no shared port

	mu       sync.RWMutex // guards the following
	closed   bool
	sessions map[wire.SessionID]*session
}

// session is one session's sockets and bound legs.
type session struct {
	lease.Session
	sockets []*socket // none: the shared port only

	mu          sync.Mutex // guards the following
	closed      bool
	connections map[uint16]*connection
	legs        map[bpf.Leg]leg.ID // all that are bound
	carried     lease.Traffic      // by pairs that are gone
}

// connection is two legs that are bound or wait to be.
type connection struct {
	legs  [2]bpf.Leg // zero: not bound
	ports [2]*socket // where a bound leg is heard and sent to
	held  [2][]held  // packets of a bound leg that wait for the other
}

type held struct {
	packet []byte
	ecn    byte
}

// pair returns the pair of both legs, if both are bound.
func (c *connection) pair() (bpf.Pair, bool) {
	p := bpf.Pair{Protocol: bpf.UDP, A: c.legs[0], B: c.legs[1]}
	return p, p.A.Port != 0 && p.B.Port != 0
}

// New returns a Relay without sessions, to be Run.
func New(cfg Config) (*Relay, error) {
	r := &Relay{cfg: cfg, plane: NewPlane(), sessions: make(map[wire.SessionID]*session)}
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		d, err := newReader(r)
		if err != nil {
			for _, d := range r.readers {
				d.close()
			}
			return nil, err
		}
		r.readers = append(r.readers, d)
	}
	return r, nil
}

// Plane returns the data plane that carries the packets.
func (r *Relay) Plane() bpf.Plane { return r.plane }

// listen opens a port at each of the relay's addresses, and has it read.
func (r *Relay) listen(port uint16, owner *session) ([]*socket, error) {
	addresses := r.cfg.Listen
	if len(addresses) == 0 {
		addresses = []netip.Addr{{}}
	}
	var list []*socket
	for _, a := range addresses {
		s, err := listen(a, port, owner)
		if err == nil {
			err = r.start(s)
		}
		if err != nil {
			stopAll(list)
			return nil, err
		}
		list = append(list, s)
		port = s.port // if the system was to choose, it chooses once
	}
	return list, nil
}

// start gives a socket to a reader, or closes it.
func (r *Relay) start(s *socket) error {
	d := r.readers[int(r.turn.Add(1))%len(r.readers)]
	remove, err := d.add(s)
	if err != nil {
		s.close()
		return err
	}
	s.remove = remove
	return nil
}

// stop takes a socket from its reader and closes it.
func (s *socket) stop() {
	s.remove()
	s.close()
}

func stopAll(list []*socket) {
	for _, s := range list {
		s.stop()
	}
}

// Share opens the shared port and returns its number: port, unless that is 0.
// It comes before Run and Open.
func (r *Relay) Share(port uint16) (uint16, error) {
	list, err := r.listen(port, nil)
	if err != nil {
		return 0, err
	}
	r.shared = list
	return list[0].port, nil
}

// Run serves until ctx is cancelled, then ends all sessions and returns when
// every reader has stopped.
func (r *Relay) Run(ctx context.Context) error {
	var reading sync.WaitGroup
	for _, d := range r.readers {
		reading.Go(d.run)
	}
	<-ctx.Done()
	r.mu.Lock()
	r.closed = true
	ids := make([]wire.SessionID, 0, len(r.sessions))
	for id := range r.sessions {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	for _, id := range ids {
		r.Close(id)
	}
	stopAll(r.shared)
	for _, d := range r.readers {
		d.stop()
	}
	reading.Wait()
	for _, d := range r.readers {
		d.close()
	}
	return r.plane.Close()
}

// Open lets a session's legs bind, at its own port if it has one. An error
// means that the port could not be opened: nothing is left behind.
func (r *Relay) Open(s lease.Session) error {
	n := &session{Session: s, connections: make(map[uint16]*connection), legs: make(map[bpf.Leg]leg.ID)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("open session %v: %w", s.ID, context.Canceled)
	}
	if s.Port != 0 {
		var err error
		if n.sockets, err = r.listen(s.Port, n); err != nil {
			return err
		}
	}
	r.sessions[s.ID] = n
	return nil
}

// Close ends a session. It returns what the session's UDP legs carried, when
// nothing of it is read any more.
func (r *Relay) Close(id wire.SessionID) lease.Traffic {
	r.mu.Lock()
	s, ok := r.sessions[id]
	delete(r.sessions, id)
	r.mu.Unlock()
	if !ok {
		return lease.Traffic{}
	}
	s.mu.Lock()
	s.closed = true
	sockets := s.sockets
	for _, c := range s.connections {
		for _, p := range c.ports {
			if p != nil && p.parent != nil {
				sockets = append(sockets, p)
			}
		}
	}
	s.mu.Unlock()
	stopAll(sockets)
	for _, p := range sockets {
		p.settle() // its reader may be counting
	}
	for _, c := range s.connections {
		if p, ok := c.pair(); ok {
			s.settleLocked(r.plane.Remove(p))
		}
		for _, l := range c.legs {
			r.plane.detach(l)
		}
	}
	return s.carried
}

// settleLocked keeps the counters of a pair that is gone.
func (s *session) settleLocked(c bpf.Counters, _ error) {
	s.carried = s.carried.Plus(lease.Traffic{c.FromA.Bytes, c.FromB.Bytes})
}

// Traffic returns what a session's UDP legs have carried so far.
func (r *Relay) Traffic(id wire.SessionID) lease.Traffic {
	s := r.session(id)
	if s == nil {
		return lease.Traffic{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	total := s.carried
	for _, c := range s.connections {
		if p, ok := c.pair(); ok {
			if n, err := r.plane.Counters(p); err == nil {
				total = total.Plus(lease.Traffic{n.FromA.Bytes, n.FromB.Bytes})
			}
		}
	}
	return total
}

func (r *Relay) session(id wire.SessionID) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[id]
}
