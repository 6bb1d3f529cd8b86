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
// Where there is a kernel plane, it is given every pair as well: what it takes
// then reaches user space only with the STUN cookie. It is a short cut and
// decides nothing: what it does not take, and whatever it passes, goes by the
// sockets.
//
// A packet leaves from the very address that the other portal sends to, of a
// machine that has several.
//
// A packet that the system does not take is dropped and counted, and the log
// says why: nothing is queued but up to 8 packets of a leg that wait for the
// other one's bind.
package udp

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/bpf"
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

// Config is what a Relay works with. Up to Take, all fields are needed.
type Config struct {
	Listen  []netip.Addr // addresses of all sockets; none: every address of the machine
	Leases  *lease.Table
	Sources *source.Rules
	Drops   *drop.Counters
	Log     *slog.Logger
	Now     func() time.Time
	// Take opens the session of a ticket that a leg from source has proven, unless
	// it is open, or says why not.
	Take func(k lease.Ticket, source netip.Addr) drop.Reason

	// Kernel is a plane that is given all pairs too. It is its owner's to
	// close, after Run.
	Kernel bpf.Plane
	// Packets and Bytes limit what each connection of a session carries in one
	// direction in a second; bytes are of payload. 0: no limit.
	Packets, Bytes uint64
}

// Relay holds the UDP legs of all sessions.
type Relay struct {
	cfg      Config
	limits   atomic.Pointer[bpf.Terms] // Packets and Bytes of Config, as they are now
	made     time.Time
	plane    *plane
	shortcut *shortcut
	readers  []*reader
	turn     atomic.Uint32 // which reader gets the next socket
	unsent   unsent

	shared []*socket // set by Share, before Run; none: no shared port

	mu       sync.RWMutex // guards the following
	closed   bool
	sessions map[wire.SessionID]*session
	past     Totals // of sessions that are gone
}

// New returns a Relay without sessions, to be Run.
func New(cfg Config) (*Relay, error) {
	r := &Relay{cfg: cfg, made: cfg.Now(), plane: newPlane(), shortcut: newShortcut(cfg.Kernel, cfg.Log), sessions: make(map[wire.SessionID]*session)}
	r.SetLimits(cfg.Packets, cfg.Bytes)
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

// SetLimits changes Packets and Bytes of Config, for connections that begin from now on.
func (r *Relay) SetLimits(packets, bytes uint64) {
	r.limits.Store(&bpf.Terms{Packets: packets, Bytes: bytes})
}

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

// Run serves until ctx is cancelled, and returns when every reader has stopped.
// Sessions that were not closed before that are left to the kernel plane: what
// it has of them goes on, until a later Relay takes them over or their lifetime
// ends.
func (r *Relay) Run(ctx context.Context) error {
	var reading sync.WaitGroup
	for _, d := range r.readers {
		reading.Go(d.run)
	}
	<-ctx.Done()
	r.mu.Lock()
	r.closed = true
	left := r.sessions
	r.sessions = nil
	r.mu.Unlock()
	for _, s := range left {
		s.stop()
	}
	stopAll(r.shared)
	for _, d := range r.readers {
		d.stop()
	}
	reading.Wait()
	for _, d := range r.readers {
		d.close()
	}
	r.plane.close()
	return nil
}

// clock returns the nanoseconds that have passed since the Relay was made.
func (r *Relay) clock() int64 { return int64(r.cfg.Now().Sub(r.made)) }
