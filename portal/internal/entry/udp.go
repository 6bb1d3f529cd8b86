package entry

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

const (
	// flowIdle ends the flow of a client that neither sent nor got anything (RFC
	// 4787 REQ-5: not before two minutes).
	flowIdle = 2 * time.Minute
	// shortIdle ends that of a question that was answered, and nothing more, at a
	// well-known port, where RFC 4787 allows it: DNS, NTP and SNMP clients take
	// a new port each time. shortTime is how long such an exchange takes at most.
	shortIdle = 30 * time.Second
	shortTime = 2 * time.Second
	wellKnown = 1024
	// sweepTime is how often idle flows are looked for.
	sweepTime = 5 * time.Second
	// maxFlows bounds the clients of one forward, to leave some of a tunnel's
	// 4,096 to others. Where there are so many, those that were idle longest give
	// way, but not before evictIdle, and not more often than once in evictEvery.
	maxFlows   = 3072
	evictIdle  = 5 * time.Second
	evictEvery = time.Second
	// maxWaiting bounds the datagrams of one client that wait for its flow to
	// be opened, and maxWaitingBytes their size.
	maxWaiting      = 16
	maxWaitingBytes = 128 << 10
)

// udpForward is the clients of a forward's UDP listener.
//
// A client whose target cannot be reached (the exit passes on what ICMP says)
// loses its flow, the log and "status" say why, and its next datagram tries
// again at once. It is told nothing itself: an ordinary user cannot send ICMP,
// and a socket that all clients share cannot refuse one of them.
type udpForward struct {
	*forward
	conn *net.UDPConn

	mu      sync.Mutex // guards the following
	flows   map[netip.AddrPort]*udpFlow
	evicted time.Time // when flows had to give way last
}

// flow is a *tunnel.Flow.
type flow interface {
	Send(b []byte) bool
	Close(reason wire.Reason)
}

// udpFlow is one client. It is the Sink of its flow.
//
//	opening --- tunnel took the first datagram ---> open --- idle, cut ---> over
//	   \_________ no tunnel, refused _______________________________________/
type udpFlow struct {
	u      *udpForward
	source netip.AddrPort
	reply  []byte // control data that makes answers leave from the address the client wrote to
	begun  time.Time

	mu       sync.Mutex // guards the following
	flow     flow       // nil: opening
	waiting  [][]byte   // while opening
	size     int        // of waiting
	over     bool
	answered bool
	used     time.Time
	to       choice // the target, chosen when it began
}

// serveUDP gives each client a flow, until the listener is closed. Datagrams are
// read one by one: in batches each would cost 0.7 µs and not 0.9 (measured), and
// the room for 64 of the largest 4 MB.
func (f *forward) serveUDP(conn *net.UDPConn) error {
	u := newUDPForward(f, conn)
	return u.serve()
}

func newUDPForward(f *forward, conn *net.UDPConn) *udpForward {
	return &udpForward{forward: f, conn: conn, flows: make(map[netip.AddrPort]*udpFlow)}
}

func (u *udpForward) serve() error {
	conn := u.conn
	defer u.endAll()
	defer conn.Close()
	oob := wantDestination(conn)
	buf := make([]byte, 1<<16)
	sweep := time.Now().Add(sweepTime)
	for {
		conn.SetReadDeadline(u.nextSweep(sweep))
		// After the deadline is set: whoever changes this sets it to the past.
		if u.drained() {
			return net.ErrClosed
		}
		n, oobn, _, source, err := conn.ReadMsgUDPAddrPort(buf, oob)
		now := time.Now()
		if !now.Before(sweep) {
			u.sweep(now)
			sweep = now.Add(sweepTime)
		}
		var timeout net.Error
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return err
		case errors.As(err, &timeout) && timeout.Timeout():
			continue
		default:
			// A client that is gone, by ICMP; nothing to do with the listener.
			continue
		}
		if n > wire.MaxDatagram {
			u.dropped.Add(1)
			continue
		}
		u.datagram(now, netip.AddrPortFrom(source.Addr().Unmap(), source.Port()), buf[:n], oob[:oobn])
	}
}

// nextSweep is when to look for idle flows: never, as long as there is none.
func (u *udpForward) nextSweep(at time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.flows) == 0 {
		return time.Time{}
	}
	return at
}

// datagram passes a client's datagram on; both slices are borrowed.
func (u *udpForward) datagram(now time.Time, source netip.AddrPort, b, oob []byte) {
	u.mu.Lock()
	c := u.flows[source]
	if c == nil {
		if u.draining() || len(u.flows) >= maxFlows {
			room := !u.draining() && now.Sub(u.evicted) >= evictEvery
			if room {
				u.evicted = now
			}
			u.mu.Unlock()
			u.dropped.Add(1) // this one; the next may find room
			if room {
				u.evict(now)
			}
			return
		}
		if !u.first().Clients.Allow(source.Addr()) {
			u.mu.Unlock()
			u.forbid(source)
			return
		}
		c = &udpFlow{
			u: u, source: source, reply: slices.Clone(oob), begun: now, used: now,
			waiting: [][]byte{slices.Clone(b)}, size: len(b),
		}
		u.flows[source] = c
		u.mu.Unlock()
		u.accepted.Add(1)
		u.entry.tasks.Go(c.open)
		return
	}
	u.mu.Unlock()
	if !c.send(now, b) {
		u.dropped.Add(1)
	}
}

func (c *udpFlow) send(now time.Time, b []byte) bool {
	c.mu.Lock()
	c.used = now
	if flow := c.flow; flow != nil && !c.over {
		c.mu.Unlock()
		return flow.Send(b)
	}
	defer c.mu.Unlock()
	switch {
	case c.over:
		return false
	case len(c.waiting) >= maxWaiting || c.size+len(b) > maxWaitingBytes:
		return false
	}
	c.waiting = append(c.waiting, slices.Clone(b))
	c.size += len(b)
	return true
}

// open opens the flow with the datagrams that wait, to the first target that can
// be reached.
func (c *udpFlow) open() {
	list := c.u.order(c.source.Addr())
	for i, to := range list {
		began := time.Now()
		c.mu.Lock()
		c.to = to
		c.mu.Unlock()
		limit := tunnelTime
		if i < len(list)-1 {
			limit = offerTime
		}
		err := c.u.entry.with(c.u.ctx, limit, to.Grant, func(ctx context.Context, t *tunnel.Tunnel) error { return c.openOn(ctx, t, to.Grant) })
		if err == nil {
			return
		}
		c.u.pass(to, began, err)
		if i == len(list)-1 || !elsewhere(err) {
			c.u.ended(to.Grant, c.source, err)
			break
		}
	}
	c.end()
}

func (c *udpFlow) openOn(ctx context.Context, t *tunnel.Tunnel, g grant.Grant) error {
	c.mu.Lock()
	first := c.waiting[0] // the datagram that began the flow
	c.mu.Unlock()
	flow, err := t.OpenFlow(ctx, g.ID(), g.AppendTo(nil), c.source, first, c)
	if err != nil {
		return err
	}
	// No lock is held while the tunnel is called. What comes meanwhile waits
	// behind what waits already, so the order stays.
	for sent := 1; ; {
		c.mu.Lock()
		waiting, over := c.waiting[sent:], c.over
		if len(waiting) == 0 || over {
			c.flow, c.waiting = flow, nil
			c.mu.Unlock()
			if over {
				flow.Close(wire.ReasonIdle)
			}
			return nil
		}
		c.mu.Unlock()
		for _, b := range waiting {
			if !flow.Send(b) {
				c.u.dropped.Add(1)
			}
		}
		sent += len(waiting)
	}
}

// Datagram implements tunnel.Sink.
func (c *udpFlow) Datagram(b []byte) {
	c.mu.Lock()
	c.used, c.answered = time.Now(), true
	c.mu.Unlock()
	if _, _, err := c.u.conn.WriteMsgUDPAddrPort(b, c.reply, c.source); err != nil {
		c.u.dropped.Add(1)
	}
}

// Ended implements tunnel.Sink.
func (c *udpFlow) Ended(err error) {
	c.end()
	c.mu.Lock()
	to, answered, begun := c.to, c.answered, c.begun
	c.mu.Unlock()
	if to.t != nil && !answered && elsewhere(err) { // the next one is for another target
		c.u.pass(to, begun, err)
	}
	var end *tunnel.EndError
	if errors.As(err, &end) && end.Reason != wire.ReasonNone && end.Reason != wire.ReasonIdle {
		c.u.ended(to.Grant, c.source, err)
	}
}

// end takes the client out: its next datagram begins anew.
func (c *udpFlow) end() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if c.u.flows[c.source] == c {
		delete(c.u.flows, c.source)
	}
	if len(c.u.flows) == 0 && c.u.draining() {
		c.u.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// drained reports whether the last client of a forward that takes no more has
// gone.
func (u *udpForward) drained() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.draining() && len(u.flows) == 0
}

// sweep ends the flows that were idle for too long.
func (u *udpForward) sweep(now time.Time) {
	short := u.first().Target.Port() < wellKnown
	for _, c := range u.all() {
		c.mu.Lock()
		limit := flowIdle
		if short && c.answered && c.used.Sub(c.begun) <= shortTime {
			limit = shortIdle
		}
		idle, flow := now.Sub(c.used) >= limit, c.flow
		c.mu.Unlock()
		if idle && flow != nil {
			flow.Close(wire.ReasonIdle)
		}
	}
}

// evict ends a tenth of the flows, those that were idle longest.
func (u *udpForward) evict(now time.Time) {
	type idle struct {
		flow flow
		used time.Time
	}
	var list []idle
	for _, c := range u.all() {
		c.mu.Lock()
		if c.flow != nil && now.Sub(c.used) >= evictIdle {
			list = append(list, idle{c.flow, c.used})
		}
		c.mu.Unlock()
	}
	sort.Slice(list, func(i, j int) bool { return list[i].used.Before(list[j].used) })
	for _, i := range list[:min(len(list), maxFlows/10)] {
		i.flow.Close(wire.ReasonIdle)
	}
}

// endAll ends every flow with its listener.
func (u *udpForward) endAll() {
	for _, c := range u.all() {
		c.end()
		c.mu.Lock()
		flow := c.flow
		c.mu.Unlock()
		if flow != nil {
			flow.Close(wire.ReasonShutdown)
		}
	}
}

func (u *udpForward) all() []*udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]*udpFlow, 0, len(u.flows))
	for _, c := range u.flows {
		list = append(list, c)
	}
	return list
}
