// Package rawio reads and writes sockets only when they are ready. A goroutine
// that waits in net.Conn.Read holds the buffer it will read into; a portal
// with thousands of idle connections would hold a large buffer for each. And
// net.Conn.Write waits until the far side has room, which the goroutine that
// reads a carrier must never do. Go's network poller serves both needs through
// syscall.RawConn. Where a connection has none (Windows, a connection in
// memory, TLS), reading falls back to holding a buffer, and nothing is written
// without waiting.
package rawio

import "net"

// Buffers are what a Reader reads into.
type Buffers interface {
	// Get returns where to read to, in this order: at least one buffer, none
	// of them empty. The same is returned until Put is called.
	Get() [][]byte
	// Put takes back what Get returned: there is nothing to read yet.
	Put()
}

// Reader reads from a connection into buffers that are taken when there is
// something to read. It is used by one goroutine.
type Reader struct {
	conn  net.Conn
	into  Buffers
	ready ready
}

// NewReader returns a Reader of conn.
func NewReader(conn net.Conn, into Buffers) *Reader {
	r := &Reader{conn: conn, into: into}
	r.init()
	return r
}

// readHolding reads into a buffer that is held all the while.
func (r *Reader) readHolding() (int, error) { return r.conn.Read(r.into.Get()[0]) }
