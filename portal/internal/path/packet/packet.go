// Package packet holds the UDP sockets of a portal: one for each IP version,
// opened when it is needed first and closed when it was not needed for long.
// STUN, echoes and QUIC share it, with every relay that the portal uses; so to a
// NAT the portal is one pair of address and port, whatever it talks to.
//
// An Endpoint is one relay's address and port, as one session uses it. What
// comes from elsewhere is dropped and counted before anybody looks at it: a
// stranger gets no answer of QUIC's, not even a refusal. Of what comes from an
// Endpoint's address, packets whose first two bits are 0 (STUN, echoes) go to the
// Endpoint's owner and all others to QUIC, and QUIC connections that the other
// side dials go to the Endpoint they come from.
//
// What may come from anywhere is probes (package probe): they go to the Prober, who
// is silent to all that are not proven. Where he has found another portal he opens a
// direct Endpoint: its address is that portal's own, of what comes from there only
// probes and QUIC are taken, and all is sent from the shared socket, whose address
// NATs have seen and remember.
//
// A socket is bound to the wildcard address and keeps its port when the machine
// moves to another network: what an Endpoint's owner does then is to bind its
// leg anew, and QUIC goes on.
package packet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/probe"
)

func init() {
	// quic-go would write to standard error, past the log, where a socket's
	// buffers are smaller than it likes. They are as large as they can be.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
}

// idleTime is how long a shared socket stays open for the next who needs it.
const idleTime = 5 * time.Minute

// Sockets opens and closes sockets. Its methods are safe for concurrent use.
type Sockets struct {
	log    *slog.Logger
	prober atomic.Pointer[Prober] // nil: nobody takes probes

	mu     sync.Mutex // guards the following
	closed bool
	shared map[string]*line   // by network
	all    map[*line]struct{} // shared or not
}

// NewSockets returns Sockets, none of which is open.
func NewSockets(log *slog.Logger) *Sockets {
	return &Sockets{log: log, shared: make(map[string]*line), all: make(map[*line]struct{})}
}

// Owner is who uses an Endpoint. Its methods are called by the socket's readers
// and writers, and must not block.
type Owner interface {
	// Packet takes a packet that is not QUIC's, which it must not keep.
	Packet(b []byte)
	// Moved tells that the socket has been replaced: what is bound may be bound to
	// a port that is no longer ours.
	Moved()
}

// Open returns an Endpoint for a relay's address and port. If own is set, or
// if the shared socket has an Endpoint for this address already, it gets a
// socket of its own.
func (s *Sockets) Open(relay netip.AddrPort, own bool, owner Owner) (*Endpoint, error) {
	network := networkOf(relay.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared := s.shared[network]; own || shared != nil && shared.endpoint(relay) != nil {
		l, err := s.openLocked(network)
		if err != nil {
			return nil, err
		}
		return s.addLocked(l, relay, owner, nil), nil
	}
	l, err := s.sharedLocked(network)
	if err != nil {
		return nil, err
	}
	return s.addLocked(l, relay, owner, nil), nil
}

func networkOf(a netip.Addr) string {
	if a.Is6() {
		return "udp6"
	}
	return "udp4"
}

var errStopping = errors.New("open UDP socket: the portal stops")

// openLocked opens another socket.
func (s *Sockets) openLocked(network string) (*line, error) {
	if s.closed {
		return nil, errStopping
	}
	l, err := openLine(s, network)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	s.all[l] = struct{}{}
	return l, nil
}

// sharedLocked returns the shared socket, which it opens if need be, for who uses it
// from now on.
func (s *Sockets) sharedLocked(network string) (*line, error) {
	l := s.shared[network]
	if l == nil {
		var err error
		if l, err = s.openLocked(network); err != nil {
			return nil, err
		}
		s.shared[network] = l
	}
	if l.idle != nil {
		l.idle.Stop()
	}
	return l, nil
}

func (s *Sockets) addLocked(l *line, remote netip.AddrPort, owner Owner, inbox *Inbox) *Endpoint {
	e := newEndpoint(s, l, remote, owner, inbox)
	l.change(func(m map[netip.AddrPort]*Endpoint) { m[remote] = e })
	return e
}

// release takes an Endpoint off its socket.
func (s *Sockets) release(e *Endpoint) {
	l := e.line
	s.mu.Lock()
	l.change(func(m map[netip.AddrPort]*Endpoint) {
		if m[e.remote] == e {
			delete(m, e.remote)
		}
	})
	unused := s.restLocked(l)
	if unused {
		delete(s.all, l)
	}
	s.mu.Unlock()
	if unused {
		l.close()
	}
}

// restLocked reports whether a socket is to be closed at once: nobody uses it, and it is
// not shared. A shared one rests for a while.
func (s *Sockets) restLocked(l *line) (unused bool) {
	if !l.unusedLocked() || s.closed {
		return false
	}
	if s.shared[l.network] != l {
		return true
	}
	l.idle = time.AfterFunc(idleTime, func() { s.closeUnused(l) })
	return false
}

// closeUnused closes a shared socket that still nobody uses.
func (s *Sockets) closeUnused(l *line) {
	s.mu.Lock()
	unused := !s.closed && l.unusedLocked() && s.shared[l.network] == l
	if unused {
		delete(s.shared, l.network)
		delete(s.all, l)
	}
	s.mu.Unlock()
	if unused {
		l.close()
	}
}

// Close closes all sockets, and every QUIC connection on them without a word to
// the other side. It returns when their readers have ended.
func (s *Sockets) Close() {
	s.mu.Lock()
	s.closed = true
	var all []*line
	for l := range s.all {
		all = append(all, l)
		if l.idle != nil {
			l.idle.Stop()
		}
	}
	clear(s.all)
	s.mu.Unlock()
	for _, l := range all {
		l.close()
	}
}

// line is one socket with all that shares it.
type line struct {
	*conn
	transport *quic.Transport
	listener  *quic.Listener
	accepting sync.WaitGroup
	endpoints atomic.Pointer[map[netip.AddrPort]*Endpoint] // never changed in place
	strangers atomic.Uint64                                // packets from elsewhere
	port      *Port
	prober    *atomic.Pointer[Prober]
	idle      *time.Timer // guarded by Sockets.mu; nil: never unused yet
	held      int         // guarded by Sockets.mu: how often the Port is held
}

// unusedLocked reports whether nobody needs the socket. Sockets.mu is held.
func (l *line) unusedLocked() bool { return l.held == 0 && len(*l.endpoints.Load()) == 0 }

func openLine(s *Sockets, network string) (*line, error) {
	log := s.log
	l := &line{prober: &s.prober}
	l.port = &Port{s, l}
	l.endpoints.Store(&map[netip.AddrPort]*Endpoint{})
	c := &conn{network: network, log: log, sift: l.sift, wrote: l.wrote, moved: l.moved, done: make(chan struct{})}
	if err := c.listen(); err != nil {
		return nil, err
	}
	l.conn = c
	l.transport = &quic.Transport{Conn: c, ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		_, err := l.expected(sourceOf(info.RemoteAddr))
		return ctx, err
	}}
	secure := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		x, err := l.expected(sourceOf(hello.Conn.RemoteAddr()))
		if err != nil {
			return nil, err
		}
		return x.tls, nil
	}}
	config := &quic.Config{GetConfigForClient: func(info *quic.ClientInfo) (*quic.Config, error) {
		x, err := l.expected(sourceOf(info.RemoteAddr))
		if err != nil {
			return nil, err
		}
		return x.quic, nil
	}}
	var err error
	if l.listener, err = l.transport.Listen(secure, config); err != nil {
		l.transport.Close()
		c.Close()
		return nil, err
	}
	l.accepting.Go(l.accept)
	return l, nil
}

// accept gives QUIC connections to the Endpoints they come from.
func (l *line) accept() {
	for {
		conn, err := l.listener.Accept(context.Background())
		if err != nil {
			return
		}
		if e := l.endpoint(sourceOf(conn.RemoteAddr())); e == nil || !e.deliver(conn) {
			conn.CloseWithError(0, "")
		}
	}
}

func (l *line) close() {
	l.shut()
	l.transport.Close()
	l.accepting.Wait()
	l.conn.Close()
	l.log.Debug("UDP socket closed", "strangers", l.strangers.Load(), "unsent", l.lost.Load())
}

func (l *line) endpoint(from netip.AddrPort) *Endpoint { return (*l.endpoints.Load())[from] }

// change makes a new map of Endpoints. Sockets.mu is held.
func (l *line) change(f func(map[netip.AddrPort]*Endpoint)) {
	m := maps.Clone(*l.endpoints.Load())
	f(m)
	l.endpoints.Store(&m)
}

func (l *line) expected(from netip.AddrPort) (*expectation, error) {
	e := l.endpoint(from)
	if e == nil {
		return nil, errors.New("nobody waits for this address")
	}
	x := e.expected.Load()
	if x == nil {
		return nil, errors.New("nobody waits for a connection from this address")
	}
	return x, nil
}

// sift implements conn's: it lets pass what is for QUIC.
func (l *line) sift(from netip.AddrPort, packet []byte) bool {
	e := l.endpoint(from)
	switch {
	case len(packet) == 0:
	case e == nil || e.owner == nil && packet[0]&0xc0 == 0:
		if l.probe(from, packet) {
			return false
		}
	case packet[0]&0xc0 == 0:
		e.owner.Packet(packet)
		return false
	case e.used.Load(): // else QUIC would refuse what it may expect a moment later
		e.heard.Store(now())
		return true
	}
	l.strangers.Add(1)
	return false
}

// probe reports whether a packet was one to look at as a probe.
func (l *line) probe(from netip.AddrPort, packet []byte) bool {
	prober := l.prober.Load()
	if _, shaped := probe.IDOf(packet); !shaped || prober == nil {
		return false
	}
	(*prober).Probe(l.port, from, packet)
	return true
}

// moved implements conn's.
func (l *line) moved() {
	for _, e := range *l.endpoints.Load() {
		if e.owner != nil {
			e.owner.Moved()
		}
	}
	if prober := l.prober.Load(); prober != nil {
		(*prober).Replaced()
	}
}

// wrote implements conn's.
func (l *line) wrote(to netip.AddrPort) {
	if e := l.endpoint(to); e != nil {
		e.sent.Store(now())
	}
}

var epoch = time.Now()

// now is the time as Endpoints keep it: what has passed on the monotonic clock.
func now() int64 { return int64(time.Since(epoch)) }
