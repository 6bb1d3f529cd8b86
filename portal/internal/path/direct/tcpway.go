package direct

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/netport/netport/proto/wire"
)

// directTCP is the name of a way of TCP from portal to portal.
const directTCP = "direct-tcp"

// tcpWay is TCP from portal to portal, for a first carrier.
type tcpWay struct {
	path       *Path
	connection uint16
	took       bool        // Dial has taken one; the Path's lock guards it
	conn       *connection // after Dial
	proven     func()      // ends the watch over its handshake
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

// Taken implements path.Way. Connections that wait for a first carrier beside this are no more needed
// at the TLS client; the server has only those that the client has chosen.
func (w *tcpWay) Taken() {
	w.proven()
	p := w.path
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tcp.used = append(p.tcp.used, w.conn)
	p.last, p.lastMode = w.conn.origin.peer, directTCP
	if p.Client {
		for _, c := range p.tcp.waiting {
			c.Close()
		}
		p.tcp.waiting = nil
	}
	p.wake()
}

// Dial implements path.StreamWay: it returns a connection that is proven, and that the
// TLS client has chosen.
func (w *tcpWay) Dial(ctx context.Context) (net.Conn, error) {
	p := w.path
	var conn *connection
	err := p.until(ctx, func() (bool, error) {
		if len(p.tcp.waiting) == 0 && p.Client {
			return false, errNone
		}
		conn = newest(&p.tcp.waiting)
		w.took = w.took || conn != nil
		return conn != nil, nil
	})
	if err != nil {
		return nil, err
	}
	return w.take(conn, []byte{chosen})
}

// newest takes the newest connection off a list; nil: there is none. The older ones have come to nothing, or
// the peer tried again since.
func newest(list *[]*connection) (c *connection) {
	if n := len(*list); n > 0 {
		c, *list = (*list)[n-1], (*list)[:n-1]
	}
	return c
}

// take takes a connection for the carrier. The TLS client says word.
func (w *tcpWay) take(c *connection, word []byte) (net.Conn, error) {
	c.SetDeadline(time.Time{})
	if w.path.Client {
		if _, err := c.Write(word); err != nil {
			c.Close()
			return nil, fmt.Errorf("direct TCP connection to %v: %w", c.RemoteAddr(), err)
		}
	}
	w.conn, w.proven = c, w.path.finder.Paths.Adopt(c.TCPConn, w.Stuck)
	return c.TCPConn, nil
}
