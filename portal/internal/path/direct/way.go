package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/wire"
)

// directUDP is the name of a way of QUIC from portal to portal.
const directUDP = "direct-udp"

// dialTime is how long a connection may take to come up: the way has answered a moment
// ago.
const dialTime = 3 * time.Second

var (
	errNone = errors.New("no direct way is open")
	errSlow = fmt.Errorf("no connection came up within %v", dialTime)
)

// link is a direct Endpoint at an address of the peer, and what runs over it. The Path's
// lock guards it.
type link struct {
	endpoint *packet.Endpoint
	keeper   *path.Keeper // while it carries
	conns    []*quic.Conn
	dialling bool
}

func (l *link) carries() bool { return len(l.conns) > 0 }

// drop closes what is open at an address.
func (p *pair) drop() {
	if p.way != nil {
		p.way.endpoint.Close()
		p.way = nil
	}
}

// linkLocked opens an Endpoint at an address.
func (p *Path) linkLocked(at *packet.Port, x *pair) error {
	if at == nil {
		return errNone
	}
	e, err := at.Open(x.addr, p.inbox)
	if err != nil {
		return err
	}
	x.way = &link{endpoint: e}
	return nil
}

// expectLocked has connections from an address taken.
func (p *Path) expectLocked(at *packet.Port, x *pair) {
	n := 0
	for _, o := range p.search.pairs {
		if o.way != nil {
			n++
		}
	}
	if n >= maxLinks {
		return
	}
	if err := p.linkLocked(at, x); err != nil {
		p.log.Debug("no connection is expected on a direct way", "address", x.addr.String(), "error", err)
		return
	}
	x.way.endpoint.Expect(p.TLS, p.QUIC)
}

// accept takes the connections that the peer dials.
func (p *Path) accept() {
	for {
		conn, err := p.inbox.Accept(p.ctx)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.arrived = append(p.arrived, conn)
		if len(p.arrived) > maxArrived {
			p.arrived[0].CloseWithError(0, "")
			p.arrived = p.arrived[1:]
		}
		p.tellLocked()
		p.mu.Unlock()
	}
}

// udpWay is QUIC from portal to portal.
type udpWay struct {
	path       *Path
	connection uint16
	beside     *tcpWay
	pair       *pair // that the last connection is on
}

func (w *udpWay) String() string         { return directUDP }
func (w *udpWay) Kind() wire.CarrierKind { return wire.CarrierQUIC }
func (w *udpWay) Connection() uint16     { return w.connection }

// Direct tells that no relay is on the way.
func (w *udpWay) Direct() bool { return true }

// Taken implements path.Way.
func (w *udpWay) Taken() {
	p := w.path
	p.mu.Lock()
	defer p.mu.Unlock()
	w.pair.failed, w.pair.until = 0, time.Time{}
	p.last, p.lastMode, p.dialled = w.pair.addr, directUDP, nil
}

// Lost implements path.Way.
func (w *udpWay) Lost() {
	p := w.path
	p.mu.Lock()
	defer p.mu.Unlock()
	w.pair.fail(time.Now())
}

// Quic implements path.PacketWay.
func (w *udpWay) Quic(ctx context.Context, client bool, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	if client {
		return w.dial(ctx, secure, config)
	}
	return w.take(ctx)
}

// dial makes a connection over the best open way.
func (w *udpWay) dial(ctx context.Context, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	p := w.path
	p.mu.Lock()
	x := p.bestLocked(time.Now())
	if x == nil {
		p.mu.Unlock()
		return nil, errNone
	}
	p.dialled, w.pair = x, x
	if x.way == nil { // else it carries
		if err := p.linkLocked(p.finder.port(x.addr.Addr()), x); err != nil {
			x.fail(time.Now())
			p.mu.Unlock()
			return nil, fmt.Errorf("open direct way to %v: %w", x.addr, err)
		}
	}
	l := x.way
	l.dialling = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, errSlow)
	defer cancel()
	conn, err := l.endpoint.Dial(ctx, secure, config)
	p.mu.Lock()
	defer p.mu.Unlock()
	l.dialling = false
	if err != nil {
		if ctx.Err() == nil || errors.Is(context.Cause(ctx), errSlow) {
			x.fail(time.Now())
		}
		if !x.carries() {
			x.drop()
		}
		return nil, fmt.Errorf("QUIC directly to %v: %w", x.addr, err)
	}
	p.carriesLocked(x, conn)
	return conn, nil
}

// take waits for a connection of the peer, but no longer than until there is another one of TCP
// than that which the way beside it has taken: that one is no good.
func (w *udpWay) take(ctx context.Context) (conn *quic.Conn, err error) {
	p := w.path
	err = p.until(ctx, func() (bool, error) {
		for len(p.arrived) > 0 {
			next := p.arrived[0]
			p.arrived = p.arrived[1:]
			x := p.search.find(remote(next))
			if next.Context().Err() != nil || x == nil || x.way == nil {
				next.CloseWithError(0, "")
				continue
			}
			conn, w.pair = next, x
			p.carriesLocked(x, conn)
			return true, nil
		}
		if w.beside.took && len(p.tcp.waiting) > 0 {
			return false, errNone
		}
		return false, nil
	})
	return conn, err
}

func remote(conn *quic.Conn) netip.AddrPort {
	a := conn.RemoteAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// carriesLocked counts a connection until it ends.
func (p *Path) carriesLocked(x *pair, conn *quic.Conn) {
	l := x.way
	p.anew = false
	l.conns = append(l.conns, conn)
	if l.keeper == nil {
		l.keeper = p.finder.Paths.Keeper(p.Client)
	}
	l.keeper.Disturb(time.Now())
	x.tries = burst
	p.tellLocked()
	p.wake()
	context.AfterFunc(conn.Context(), func() { p.ended(conn) })
}

// migrateLocked counts connections where they are now: a NAT has given the peer, which
// dialled them, another address, and QUIC has followed. It reports whether there is
// somewhere they could go.
func (p *Path) migrateLocked() (could bool) {
	for _, x := range p.search.pairs {
		if x.way == nil || x.carries() {
			continue
		}
		for _, o := range p.search.pairs {
			if !o.carries() {
				continue
			}
			could = true
			for _, conn := range o.way.conns {
				if remote(conn) == x.addr {
					p.moveLocked(o, x, conn)
					break
				}
			}
		}
	}
	return could
}

// moveLocked counts a connection at another address. Who asked what there is begun anew.
func (p *Path) moveLocked(from, to *pair, conn *quic.Conn) {
	p.log.Info("the peer has another address", "was", from.addr.String(), "address", to.addr.String())
	from.remove(conn)
	to.way.conns = append(to.way.conns, conn)
	to.way.keeper = p.finder.Paths.Keeper(p.Client)
	to.tries = burst
	p.last = to.addr
	if !from.carries() {
		from.drop()
	}
}

func (p *pair) remove(conn *quic.Conn) {
	p.way.conns = slices.DeleteFunc(p.way.conns, func(c *quic.Conn) bool { return c == conn })
}

// ended takes that a connection has ended. What was lost is looked for at once.
func (p *Path) ended(conn *quic.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.search.pairs {
		if x.way == nil || !slices.Contains(x.way.conns, conn) {
			continue
		}
		if x.remove(conn); x.carries() {
			return
		}
		x.way.keeper = nil
		p.anew = false
		if p.Client && !x.way.dialling {
			x.drop()
		}
		x.answered = time.Time{} // to be proven anew
		p.search.lost(time.Now())
		p.tellLocked()
		p.wake()
		return
	}
}
