package peers

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// hop is how far a portal is from every relay and from the server, one way.
const hop = 5 * time.Millisecond

// pass lets d pass, no longer than ctx.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// relay joins the connections of two legs in memory, as splice mode does.
type relay struct {
	name string

	mu    sync.Mutex // guards the following
	gone  bool       // nothing listens
	mute  bool       // nothing passes
	tries []time.Time
	half  map[joint]*end // wait for the other leg
	ends  map[*end]struct{}
}

// joint is where two legs meet.
type joint struct {
	session    wire.SessionID
	connection uint16
}

// end is the relay's end of a portal's connection.
type end struct {
	net.Conn
	leg uint8
}

func newRelay(name string) *relay {
	return &relay{name: name, half: make(map[joint]*end), ends: make(map[*end]struct{})}
}

func (r *relay) dial(ctx context.Context, s wire.Session, connection uint16) (net.Conn, error) {
	r.mu.Lock()
	r.tries = append(r.tries, time.Now())
	mute := r.mute
	r.mu.Unlock()
	if mute {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if err := pass(ctx, 2*hop); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return nil, syscall.ECONNREFUSED
	}
	mine, at := carriertest.Far(hop)
	e, k := &end{at, s.Leg}, joint{s.ID, connection}
	r.ends[e] = struct{}{}
	if other := r.half[k]; other != nil && other.leg != e.leg {
		delete(r.half, k)
		go r.join(e, other)
		go r.join(other, e)
	} else {
		r.half[k] = e // a leg that comes again takes its own place
	}
	return &socket{mine, func() { r.left(k, e) }}, nil
}

// join passes on what one end says to the other, until one is closed.
func (r *relay) join(to, from *end) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		mute := r.mute
		r.mu.Unlock()
		if err == nil && !mute {
			_, err = to.Write(b[:n])
		}
		if err != nil {
			break
		}
	}
	r.drop(to)
	r.drop(from)
}

func (r *relay) drop(e *end) {
	e.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ends, e)
}

// left takes that a portal has closed its connection.
func (r *relay) left(k joint, e *end) {
	r.mu.Lock()
	waits := r.half[k] == e
	if waits {
		delete(r.half, k)
	}
	r.mu.Unlock()
	if waits {
		r.drop(e)
	}
}

// cut breaks every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := range r.ends {
		e.Close()
	}
	clear(r.half)
}

// set makes the relay go or come back, or fall silent.
func (r *relay) set(gone, mute bool) {
	r.mu.Lock()
	r.gone, r.mute = gone, mute
	r.mu.Unlock()
	if gone {
		r.cut()
	}
}

// tried returns how often somebody has dialled since the last call.
func (r *relay) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.tries)
	r.tries = nil
	return n
}

// socket is a portal's end of a connection.
type socket struct {
	net.Conn
	closed func()
}

func (s *socket) Close() error {
	s.closed()
	return s.Conn.Close()
}

// theLeg is a Leg with the one way that a relay has.
type theLeg struct {
	of      *portal
	relay   *relay
	session wire.Session
}

func (l *theLeg) way(connection uint16) ([]path.Way, []time.Duration) {
	return []path.Way{&way{l, connection}}, []time.Duration{0}
}

func (l *theLeg) Ways(connection uint16) ([]path.Way, []time.Duration) { return l.way(connection) }
func (l *theLeg) Again() ([]path.Way, []time.Duration)                 { return l.way(leg.Meeting) }
func (l *theLeg) Of(connection uint16, kind wire.CarrierKind) ([]path.Way, []time.Duration) {
	if kind != wire.CarrierTCP {
		return nil, nil
	}
	return l.way(connection)
}

func (l *theLeg) Relay() string { return l.relay.name }
func (l *theLeg) Mode() (string, netip.AddrPort) {
	return wayName, netip.MustParseAddrPort("192.0.2.1:3478")
}
func (l *theLeg) Refresh() {}
func (l *theLeg) Failed()  {}
func (l *theLeg) Close()   {}

const wayName = "relay splice"

type way struct {
	leg        *theLeg
	connection uint16
}

func (w *way) String() string         { return wayName }
func (w *way) Kind() wire.CarrierKind { return wire.CarrierTCP }
func (w *way) Connection() uint16     { return w.connection }
func (w *way) Taken()                 {}
func (w *way) Lost()                  {}
func (w *way) Direct() bool           { return false }
func (w *way) Stuck()                 {}
func (w *way) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := w.leg.relay.dial(ctx, w.leg.session, w.connection)
	if err == nil {
		w.leg.of.heard(w.leg.relay.name)
	}
	return conn, err
}
