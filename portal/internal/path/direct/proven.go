package direct

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"
)

const (
	// keepTime is how long a proven connection is kept for who wants one: longer than another one
	// may be tried in vain.
	keepTime = 15 * time.Second
	// maxProven bounds the proven connections that the TLS client has not chosen, and maxWaiting
	// those that it has proven, or chosen, and nobody has taken: the oldest gives way. Somebody may
	// have forwarded a probe that never arrived, and holds on.
	maxProven  = 8
	maxWaiting = 4
	// chosen is what the TLS client sends on the connection that it takes. Followed by the number of
	// a carrier that it has announced, it is chosenFurther.
	chosen        = 1
	chosenFurther = 2
)

// origin is the connection, of those that carry, that was found first: others follow it.
type origin struct {
	own, peer netip.AddrPort // its addresses, as this portal sees them
	mine      bool           // this portal dials those that follow, since it has dialled this one
}

// connection is one of TCP at whose other end the peer is.
type connection struct {
	*net.TCPConn
	origin origin
	number uint16 // of the carrier that it is for; leg.Meeting: a first one, or not known yet
}

// newConnection returns a connection that follows no other.
func newConnection(conn *net.TCPConn, mine bool) *connection {
	return &connection{TCPConn: conn, number: leg.Meeting, origin: origin{addrOf(conn.LocalAddr()), addrOf(conn.RemoteAddr()), mine}}
}

// closed reports whether this portal has closed the connection.
func (c *connection) closed() bool {
	raw, err := c.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// add adds a connection to those that wait for something, of which the oldest gives way to those
// beyond most.
func add(list []*connection, c *connection, most int) []*connection {
	list = append(list, c)
	for len(list) > most {
		list[0].Close()
		list = list[1:]
	}
	return list
}

// proven takes a connection at whose other end the peer is. The TLS client keeps it for
// who wants one; the server waits for which one it chooses.
func (p *Path) proven(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.search.quota.answered(addrOf(c.RemoteAddr()), time.Now())
	switch {
	case p.ctx.Err() != nil:
		c.Close()
	case !p.Client:
		p.tcp.proven = add(p.tcp.proven, c, maxProven)
		p.tasks.Go(func() { p.await(c) })
	case c.number == leg.Meeting && len(p.tcp.used) > 0 && p.tcp.used[0].origin.mine: // the server has none to dial
		c.Close()
	default:
		p.keepLocked(c, c.number != leg.Meeting || len(p.tcp.used) > 0)
	}
}

// keepLocked has a connection taken for a first carrier or a further one, or else closed.
func (p *Path) keepLocked(c *connection, further bool) {
	list := &p.tcp.waiting
	if further {
		list = &p.tcp.further.waiting
	}
	*list = add(*list, c, maxWaiting)
	p.tellLocked()
	p.wake()
	time.AfterFunc(keepTime, func() { p.forget(c) })
}

// firstLocked has what the server has dialled taken for a first carrier: it had noticed earlier that
// none is left.
func (p *Path) firstLocked() {
	f := &p.tcp.further
	if !p.Client {
		return
	}
	for _, c := range f.waiting {
		if c.number == leg.Meeting {
			p.tcp.waiting = add(p.tcp.waiting, c, maxWaiting)
		}
	}
	f.waiting = slices.DeleteFunc(f.waiting, func(c *connection) bool { return c.number == leg.Meeting })
}

// forget closes a connection that nobody has taken.
func (p *Path) forget(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range []*[]*connection{&p.tcp.waiting, &p.tcp.further.waiting} {
		if i := slices.Index(*list, c); i >= 0 {
			c.Close()
			*list = slices.Delete(*list, i, i+1)
			p.wake()
		}
	}
}

// await waits until the TLS client takes a connection.
func (p *Path) await(c *connection) {
	stop := context.AfterFunc(p.ctx, func() { c.Close() })
	c.SetDeadline(time.Now().Add(keepTime + greetTime))
	number, took := heed(c)
	took = stop() && took
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tcp.proven = slices.DeleteFunc(p.tcp.proven, func(o *connection) bool { return o == c })
	if !took {
		c.Close()
		return
	}
	c.number = number // the word that the carrier is dialled may come later, behind much else
	p.keepLocked(c, number != leg.Meeting)
}

// heed reads what the TLS client takes a connection for, leg.Meeting being a first carrier; false:
// it does not.
func heed(c *connection) (number uint16, took bool) {
	b := make([]byte, 1+2)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return 0, false
	}
	switch b[0] {
	case chosen:
		return leg.Meeting, true
	case chosenFurther:
		_, err := io.ReadFull(c, b[1:])
		number = binary.BigEndian.Uint16(b[1:])
		return number, err == nil && number != leg.Meeting
	}
	return 0, false
}

// dropTCPLocked closes the connections that nobody has taken.
func (p *Path) dropTCPLocked() {
	for _, c := range slices.Concat(p.tcp.waiting, p.tcp.further.waiting, p.tcp.proven) {
		c.Close()
	}
	p.tcp.waiting, p.tcp.further.waiting = nil, nil
}
