package entry

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

const (
	// flowIdle ends the flow of a client that neither sent nor got anything:
	// twice what many NATs give a UDP mapping at least (RFC 4787 section 4.3
	// asks for two minutes and finds half a minute in the field).
	flowIdle = time.Minute
	// sweepTime is how often idle flows are looked for.
	sweepTime = 5 * time.Second
	// maxFlows bounds the clients of one forward: a tunnel has no more.
	maxFlows = 4096
	// maxWaiting bounds the datagrams of one client that wait for its flow to
	// be opened, and maxWaitingBytes their size.
	maxWaiting      = 16
	maxWaitingBytes = 128 << 10
)

// udpForward is the clients of a forward's UDP listener.
type udpForward struct {
	*forward
	conn *net.UDPConn

	mu    sync.Mutex // guards the following
	flows map[netip.AddrPort]*udpFlow
}

// udpFlow is one client. It is the Sink of its flow.
//
//	opening --- tunnel took the first datagram ---> open --- idle, cut ---> over
//	   \_________ no tunnel, refused _______________________________________/
type udpFlow struct {
	u      *udpForward
	source netip.AddrPort
	reply  []byte // control data that makes answers leave from the address the client wrote to

	mu      sync.Mutex // guards the following
	flow    *tunnel.Flow
	waiting [][]byte // while opening
	size    int      // of waiting
	over    bool
	used    time.Time
}

// serveUDP gives each client a flow, until the listener is closed.
func (f *forward) serveUDP(conn *net.UDPConn) error {
	u := &udpForward{forward: f, conn: conn, flows: make(map[netip.AddrPort]*udpFlow)}
	defer u.endAll()
	defer conn.Close()
	oob := wantDestination(conn)
	buf := make([]byte, 1<<16)
	sweep := time.Now().Add(sweepTime)
	for {
		conn.SetReadDeadline(u.nextSweep(sweep))
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
			f.dropped.Add(1)
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
		if len(u.flows) >= maxFlows {
			u.mu.Unlock()
			u.dropped.Add(1)
			return
		}
		c = &udpFlow{
			u: u, source: source, reply: slices.Clone(oob), used: now,
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

// open opens the flow with the datagrams that wait.
func (c *udpFlow) open() {
	g := c.u.grant()
	err := c.u.entry.with(c.u.ctx, g, func(ctx context.Context, t *tunnel.Tunnel) error { return c.openOn(ctx, t, g) })
	if err != nil {
		c.u.ended(c.source, err)
		c.end()
	}
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
	c.used = time.Now()
	c.mu.Unlock()
	if _, _, err := c.u.conn.WriteMsgUDPAddrPort(b, c.reply, c.source); err != nil {
		c.u.dropped.Add(1)
	}
}

// Ended implements tunnel.Sink.
func (c *udpFlow) Ended(err error) {
	c.end()
	var end *tunnel.EndError
	if errors.As(err, &end) && end.Reason != wire.ReasonNone && end.Reason != wire.ReasonIdle {
		c.u.ended(c.source, err)
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
}

// sweep ends the flows that were idle for too long.
func (u *udpForward) sweep(now time.Time) {
	for _, c := range u.all() {
		c.mu.Lock()
		idle := now.Sub(c.used) >= flowIdle
		flow := c.flow
		c.mu.Unlock()
		if idle && flow != nil {
			flow.Close(wire.ReasonIdle)
		}
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
