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
	"sync"
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
// that Read would return: that is told once. Meanwhile the connection has no buffer, and
// needs a quarter of the stack that it does in Read, which counts where thousands wait.
// It belongs to who reads.
func (c *Conn) Await() error {
	if c.more {
		return nil // or not: then Read waits
	}
	return c.in.await()
}

// headerLen is the length of a record's header: type, version and length (RFC
// 8446 section 5.1).
const headerLen = 5

// source counts the records that crypto/tls takes. It never returns the end of
// one and the beginning of the next at once, or crypto/tls would hold records
// that it has not come to.
type source struct {
	awaited
	r       *bufio.Reader // nil: there is nothing in it
	records int
	header  [headerLen]byte
	have    int // of header
	left    int // of the record
}

// awaited is the connection, from the byte on that was waited for.
type awaited struct {
	net.Conn
	first [1]byte
	here  bool // first is not read yet
}

func (a *awaited) Read(b []byte) (int, error) {
	if a.here && len(b) > 0 {
		a.here = false
		return copy(b, a.first[:]), nil
	}
	return a.Conn.Read(b)
}

// readAhead is how many bytes are taken at once from a peer that sends small
// records, so that not each of them costs system calls of its own.
const readAhead = 512

// readers are of those who have something to read.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readAhead) }}

func newSource(raw net.Conn) *source { return &source{awaited: awaited{Conn: raw}} }

// await waits for a byte.
func (s *source) await() error {
	if s.r != nil {
		if s.r.Buffered() > 0 {
			return nil
		}
		s.r.Reset(nil)
		readers.Put(s.r)
		s.r = nil
	}
	for !s.here {
		n, err := s.Conn.Read(s.first[:])
		if n == 0 && err != nil {
			return err
		}
		s.here = n > 0
	}
	return nil
}

func (s *source) Read(b []byte) (int, error) {
	if s.r == nil {
		s.r = readers.Get().(*bufio.Reader)
		s.r.Reset(&s.awaited)
	}
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
