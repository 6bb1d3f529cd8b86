// Package record is TLS with a limit on records that carry nothing.
//
// A peer may send as many KeyUpdates as it likes (RFC 8446 section 4.6.3). Each
// costs the derivation of new keys, both ways if it asks for that: fifteen
// times what a record with a byte in it costs. crypto/tls gives up after 16 in
// a row, but begins anew after each byte of data, and tells nobody of them, so
// that no limit on what is read can see them. Here they are counted where they
// come in, for the life of the connection. crypto/tls itself never sends one.
package record

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
)

// MaxEmpty is how many records without data a peer may send on one connection.
const MaxEmpty = 64

// ErrEmpty is the error of Read when the peer has sent more than MaxEmpty.
var ErrEmpty = errors.New("the peer sends TLS records that carry nothing")

// Conn is a TLS connection that may have MaxEmpty records without data.
type Conn struct {
	*tls.Conn
	in *source

	// Owned by who reads.
	empty int
	more  bool // the last Read may have left something of its record
}

// Client is tls.Client with the limit.
func Client(raw net.Conn, config *tls.Config) *Conn {
	in := newSource(raw)
	return &Conn{Conn: tls.Client(in, config), in: in}
}

// Server is tls.Server with the limit.
func Server(raw net.Conn, config *tls.Config) *Conn {
	in := newSource(raw)
	return &Conn{Conn: tls.Server(in, config), in: in}
}

// NetConn returns the connection below TLS.
func (c *Conn) NetConn() net.Conn { return c.in.Conn }

// Read is tls.Conn's. Not more than one goroutine may read at once.
func (c *Conn) Read(b []byte) (int, error) {
	c.in.records = 0
	n, err := c.Conn.Read(b)
	c.more = n == len(b)
	// The last is the one whose data, or whose error, is returned; there is none
	// when some of the one before was left.
	c.empty += max(0, c.in.records-1)
	if err == nil && c.empty > MaxEmpty {
		return 0, ErrEmpty
	}
	return n, err
}

// Await waits until the peer has sent something for Read to take. It returns the error
// that Read would return: that is told once. It needs a quarter of the stack that Read
// does, which counts where thousands of connections wait. It belongs to who reads.
func (c *Conn) Await() error {
	if c.more {
		return nil // or not: then Read waits
	}
	_, err := c.in.r.Peek(1)
	return err
}

// headerLen is the length of a record's header: type, version and length (RFC
// 8446 section 5.1).
const headerLen = 5

// source counts the records that crypto/tls takes. It never returns the end of
// one and the beginning of the next at once, or crypto/tls would hold records
// that it has not come to.
type source struct {
	net.Conn
	r       *bufio.Reader
	records int
	header  [headerLen]byte
	have    int // of header
	left    int // of the record
}

// readAhead is how many bytes are taken at once from a peer that sends small
// records, so that not each of them costs system calls of its own.
const readAhead = 512

func newSource(raw net.Conn) *source {
	return &source{Conn: raw, r: bufio.NewReaderSize(raw, readAhead)}
}

func (s *source) Read(b []byte) (int, error) {
	if s.left > 0 {
		n, err := s.r.Read(b[:min(s.left, len(b))])
		s.left -= n
		return n, err
	}
	n, err := s.r.Read(b[:min(headerLen-s.have, len(b))])
	copy(s.header[s.have:], b[:n])
	if s.have += n; s.have == headerLen {
		s.have, s.left = 0, int(binary.BigEndian.Uint16(s.header[3:]))
		s.records++
	}
	return n, err
}
