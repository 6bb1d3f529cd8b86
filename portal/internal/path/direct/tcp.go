package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

const (
	// directTCP is the name of a way of TCP from portal to portal.
	directTCP = "direct-tcp"
	// knockTime is how long a connection may take: the first SYN, and another one.
	knockTime = 2500 * time.Millisecond
	// knockCost is how many probes a try counts for: two SYNs, or a whole connection.
	knockCost = 4
	// keepTime is how long a proven connection is kept for who wants one.
	keepTime = 10 * time.Second
	// maxProven bounds the proven connections that the TLS client has not chosen: the oldest
	// gives way. Somebody may have forwarded a probe that never arrived, and holds on.
	maxProven = 4
	// chosen is what the TLS client sends on the connection that it takes.
	chosen = 1
	// usedCheck is how often it is looked whether the connection in use was closed.
	usedCheck = 5 * time.Second
)

// knockPauses are those after tries at a door that does not open. The first is at once: where
// UDP is blocked nothing else comes up, and where it is not both do.
var knockPauses = [...]time.Duration{
	500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
	15 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
}

// knock is an address of the peer's door.
type knock struct {
	addr    netip.AddrPort
	origin  wire.CandidateOrigin
	listed  bool
	dialled bool // a try is under way
	opened  bool // it was the peer's, once
	starve  bool
	tries   int // since the search began anew
	asked   int
	due     time.Time
	err     error // of the last try
	rtt     time.Duration
	seen    netip.AddrPort
}

// tcp is what a Path has over TCP. The Path's lock guards it.
type tcp struct {
	knocks  []*knock
	waiting []*net.TCPConn // TLS client: proven, not taken yet
	arrived []*net.TCPConn // TLS server: chosen by the client, not taken yet
	proven  []*net.TCPConn // TLS server: proven, not chosen yet
	used    *net.TCPConn   // that a carrier is on
	anew    bool           // another is to be made beside it
	usedAt  netip.AddrPort
}

// listTCPLocked takes the peer's candidates for TCP.
func (p *Path) listTCPLocked(now time.Time) (refused []Refusal) {
	for _, k := range p.tcp.knocks {
		k.listed = false
	}
	for _, c := range p.given {
		if c.Transport != wire.CandidateTCP {
			continue
		}
		c.Addr = netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())
		if why := p.search.bounds.refuses(c.Addr); why != "" {
			refused = append(refused, Refusal{c, why})
			continue
		}
		i := slices.IndexFunc(p.tcp.knocks, func(k *knock) bool { return k.addr == c.Addr })
		if i < 0 {
			i = len(p.tcp.knocks)
			p.tcp.knocks = append(p.tcp.knocks, &knock{addr: c.Addr, due: now})
		}
		p.tcp.knocks[i].origin, p.tcp.knocks[i].listed = c.Origin, true
	}
	p.tcp.knocks = slices.DeleteFunc(p.tcp.knocks, func(k *knock) bool { return !k.listed && !k.dialled })
	return refused
}

func (p *Path) restartTCPLocked(now time.Time) {
	for _, k := range p.tcp.knocks {
		k.tries, k.due, k.starve = 0, now, false
	}
}

// knockLocked begins the tries that are due and returns when to call again.
func (p *Path) knockLocked(now time.Time) (again time.Time) {
	again = now.Add(knockPauses[len(knockPauses)-1])
	if p.tcp.used != nil && closed(p.tcp.used) {
		p.tcp.used, p.tcp.anew = nil, false
		p.restartTCPLocked(now)
		p.tellLocked()
	}
	if p.tcp.used != nil && !p.tcp.anew {
		return now.Add(usedCheck)
	}
	if len(p.tcp.waiting)+len(p.tcp.arrived) > 0 {
		return again
	}
	for _, k := range p.tcp.knocks {
		if k.dialled {
			continue
		}
		if !now.Before(k.due) {
			k.due = now.Add(knockPauses[min(k.tries, len(knockPauses)-1)])
			if k.starve = !k.opened && !p.search.quota.spendSeveral(k.addr, knockCost, now); !k.starve {
				k.tries++
				k.asked++
				k.dialled = true
				p.tasks.Go(func() { p.knock(k) })
				continue
			}
			k.due = now.Add(starvedPause)
		}
		again = earlier(again, k.due)
	}
	return again
}

// knock tries an address once.
func (p *Path) knock(k *knock) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(p.ctx, knockTime)
	defer cancel()
	conn, seen, err := p.reach(ctx, k.addr)
	p.mu.Lock()
	k.dialled, k.err = false, err
	if err == nil {
		k.opened, k.seen, k.rtt = true, seen, time.Since(began)/2
		p.search.quota.answered(k.addr, time.Now())
		p.stale.Store(true)
	}
	p.wake()
	p.mu.Unlock()
	if err == nil {
		p.log.Debug("direct TCP connection", "address", k.addr.String())
		p.proven(conn)
	}
}

var errNoDoor = errors.New("no TCP port is open for direct ways")

// reach connects to an address and proves both ends; seen is where the other saw this
// one.
func (p *Path) reach(ctx context.Context, to netip.AddrPort) (conn *net.TCPConn, seen netip.AddrPort, err error) {
	d := p.finder.door(to.Addr())
	if d == nil {
		return nil, seen, errNoDoor
	}
	dialled, err := d.dial(ctx, to)
	if err != nil {
		return nil, seen, err
	}
	stop := context.AfterFunc(p.ctx, func() { dialled.Close() })
	dialled.SetDeadline(time.Now().Add(greetTime))
	seen, err = p.ask(dialled)
	if err == nil && !stop() {
		err = ErrClosed
	}
	if err != nil {
		stop()
		dialled.Close()
		return nil, seen, fmt.Errorf("prove the peer at %v: %w", to, err)
	}
	return dialled, seen, nil
}

// ask proves this portal on a connection that it has dialled, and has the other prove
// itself. If that has dialled it too, it asks as well.
func (p *Path) ask(conn *net.TCPConn) (seen netip.AddrPort, err error) {
	token := rand.Uint64()
	p.mu.Lock()
	ask := p.packLocked(netip.AddrPort{}, probe.Probe{Echo: leg.Echo{Token: token, Interval: p.finder.Paths.Interval()}})
	p.mu.Unlock()
	if _, err := conn.Write(ask.b); err != nil {
		return seen, err
	}
	b := make([]byte, probe.Len)
	for range 2 {
		if _, err := io.ReadFull(conn, b); err != nil {
			return seen, err
		}
		if id, _ := probe.IDOf(b); id != p.own {
			return seen, wire.ErrMalformed
		}
		m, err := probe.Open(b, p.Keys.Key)
		switch {
		case err != nil:
			return seen, err
		case m.Echo.Answer && m.Echo.Token == token:
			return m.Seen, nil
		case m.Echo.Answer || !p.admit(conn, b):
			return seen, wire.ErrMalformed
		}
	}
	return seen, wire.ErrMalformed
}

// admit takes the probe that a connection has begun with, and answers it. It reports
// whether it is the peer that asks.
func (p *Path) admit(conn *net.TCPConn, b []byte) bool {
	m, err := probe.Open(b, p.Keys.Key)
	if err != nil || m.Echo.Answer {
		return false
	}
	from := addrOf(conn.RemoteAddr())
	p.mu.Lock()
	if p.ctx.Err() != nil || p.search.bounds.refuses(from) != "" || !p.freshLocked(m.Counter, time.Now()) {
		p.mu.Unlock()
		return false
	}
	answer := p.packLocked(from, probe.Probe{Echo: leg.Echo{Answer: true, Token: m.Echo.Token, Interval: p.finder.Paths.Interval()}, Seen: from})
	p.mu.Unlock()
	_, err = conn.Write(answer.b)
	return err == nil
}

// proven takes a connection at whose other end is the peer. The TLS client keeps one for
// who wants it; the server waits for which one it chooses.
func (p *Path) proven(conn *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ctx.Err() != nil, p.Client && len(p.tcp.waiting) > 0, p.Client && p.tcp.used != nil && !p.tcp.anew:
		conn.Close()
	case p.Client:
		p.tcp.waiting = append(p.tcp.waiting, conn)
		p.tellLocked()
		p.wake()
		time.AfterFunc(keepTime, func() { p.forget(conn) })
	default:
		if p.tcp.proven = append(p.tcp.proven, conn); len(p.tcp.proven) > maxProven {
			p.tcp.proven[0].Close()
			p.tcp.proven = p.tcp.proven[1:]
		}
		p.tasks.Go(func() { p.await(conn) })
	}
}

// forget closes a connection that nobody has taken.
func (p *Path) forget(conn *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.tcp.waiting, conn); i >= 0 {
		conn.Close()
		p.tcp.waiting = slices.Delete(p.tcp.waiting, i, i+1)
		p.wake()
	}
}

// await waits until the TLS client takes a connection.
func (p *Path) await(conn *net.TCPConn) {
	stop := context.AfterFunc(p.ctx, func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(keepTime + greetTime))
	b := make([]byte, 1)
	_, err := io.ReadFull(conn, b)
	took := err == nil && b[0] == chosen && stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tcp.proven = slices.DeleteFunc(p.tcp.proven, func(c *net.TCPConn) bool { return c == conn })
	if !took {
		conn.Close()
		return
	}
	p.tcp.arrived = append(p.tcp.arrived, conn)
	if len(p.tcp.arrived) > maxArrived {
		p.tcp.arrived[0].Close()
		p.tcp.arrived = p.tcp.arrived[1:]
	}
	p.tellLocked()
}

// closed reports whether this portal has closed a connection.
func closed(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// tcpWay is TCP from portal to portal.
type tcpWay struct {
	path       *Path
	connection uint16
	took       bool         // Dial has taken one; the Path's lock guards it
	conn       *net.TCPConn // after Dial
	proven     func()       // ends the watch over its handshake
}

func (w *tcpWay) String() string         { return directTCP }
func (w *tcpWay) Kind() wire.CarrierKind { return wire.CarrierTCP }
func (w *tcpWay) Connection() uint16     { return w.connection }
func (w *tcpWay) Direct() bool           { return true }

// Lost implements path.Way: another connection is made.
func (w *tcpWay) Lost() {}

// Stuck implements path.StreamWay. The connections that wait have segments of the same
// length.
func (w *tcpWay) Stuck() {
	p := w.path
	p.finder.Paths.Stuck()
	p.finder.bound()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropTCPLocked()
	p.wake()
}

// dropTCPLocked closes the connections that nobody has taken.
func (p *Path) dropTCPLocked() {
	for _, c := range slices.Concat(p.tcp.waiting, p.tcp.proven, p.tcp.arrived) {
		c.Close()
	}
	p.tcp.waiting, p.tcp.arrived = nil, nil
}

// Taken implements path.Way.
func (w *tcpWay) Taken() {
	w.proven()
	p := w.path
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tcp.used, p.tcp.usedAt, p.tcp.anew = w.conn, addrOf(w.conn.RemoteAddr()), false
	p.last, p.lastMode = p.tcp.usedAt, directTCP
	p.wake()
}

// Dial implements path.StreamWay: it returns a connection that is proven, and that the
// TLS client has chosen.
func (w *tcpWay) Dial(ctx context.Context) (net.Conn, error) {
	p := w.path
	for {
		p.mu.Lock()
		list := &p.tcp.arrived
		if p.Client {
			list = &p.tcp.waiting
		}
		var conn *net.TCPConn
		if len(*list) > 0 {
			conn = (*list)[0]
			*list = (*list)[1:]
			w.took = true
		}
		change := p.changed
		p.mu.Unlock()
		switch {
		case conn != nil:
			return w.take(conn)
		case p.Client:
			return nil, errNone
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.ctx.Done():
			return nil, ErrClosed
		}
	}
}

func (w *tcpWay) take(conn *net.TCPConn) (net.Conn, error) {
	conn.SetDeadline(time.Time{})
	if w.path.Client {
		if _, err := conn.Write([]byte{chosen}); err != nil {
			conn.Close()
			return nil, fmt.Errorf("direct TCP connection to %v: %w", conn.RemoteAddr(), err)
		}
	}
	w.conn, w.proven = conn, w.path.finder.Paths.Adopt(conn, w.Stuck)
	return conn, nil
}
