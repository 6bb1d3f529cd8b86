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

// Reader reads from a connection into buffers that are taken when there is
// something to read. It is used by one goroutine.
type Reader struct {
	conn  net.Conn
	get   func() []byte
	put   func([]byte)
	ready ready
}

// NewReader returns a Reader of conn. get returns a buffer, not empty, and put
// takes back one that was not needed.
func NewReader(conn net.Conn, get func() []byte, put func([]byte)) *Reader {
	r := &Reader{conn: conn, get: get, put: put}
	r.init()
	return r
}

// readHolding reads into a buffer that is held all the while.
func (r *Reader) readHolding() ([]byte, int, error) {
	b := r.get()
	n, err := r.conn.Read(b)
	return b, n, err
}
