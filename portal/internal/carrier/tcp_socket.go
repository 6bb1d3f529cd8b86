package carrier

import (
	"net"
	"sync"

	"github.com/netport/netport/portal/internal/carrier/rawio"
)

const (
	// batchLen is how many bytes of TLS records are collected before they go
	// to the socket in one system call.
	batchLen = 256 << 10
	// recordRoom is more than one TLS record takes.
	recordRoom = 17 << 10
)

// batches holds the buffers of both directions. Only a carrier that is
// carrying something holds any.
var batches = sync.Pool{New: func() any { return new([batchLen + recordRoom]byte) }}

type batch = *[batchLen + recordRoom]byte

// socket stands between crypto/tls and the connection. crypto/tls makes one
// system call for each record of 16 KiB that it writes, and about one for each
// that it reads; through a socket it is one for all records of a batch.
type socket struct {
	net.Conn

	// Read's side: used by the goroutine that reads the TLS connection.
	reader *rawio.Reader
	into   readBuffer
	in     []byte // what was read and is not taken yet, part of into

	// Write's side. crypto/tls writes under its own lock, mostly for the
	// carrier's writer, sometimes for its reader (KeyUpdate, alerts).
	mu     sync.Mutex
	corked bool
	out    batch
	n      int
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn}
	s.reader = rawio.NewReader(conn, &s.into)
	return s
}

// readBuffer takes a batch from the pool when there is something to read.
type readBuffer struct {
	taken batch
	list  [1][]byte
}

// Get implements rawio.Buffers.
func (r *readBuffer) Get() [][]byte {
	if r.taken == nil {
		r.taken = batches.Get().(batch)
		r.list[0] = r.taken[:]
	}
	return r.list[:]
}

// Put implements rawio.Buffers.
func (r *readBuffer) Put() {
	if r.taken != nil {
		batches.Put(r.taken)
		*r = readBuffer{}
	}
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		n, err := s.reader.Read()
		if n == 0 {
			s.into.Put()
			return 0, err
		}
		s.in = s.into.taken[:n]
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	if len(s.in) == 0 {
		s.into.Put()
	}
	return n, nil
}

// Write implements net.Conn. While the socket is corked, it collects.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.corked {
		return s.Conn.Write(p)
	}
	if s.out == nil {
		s.out = batches.Get().(batch)
	}
	done := 0
	for len(p) > 0 {
		n := copy(s.out[s.n:], p)
		s.n += n
		done += n
		p = p[n:]
		if len(p) > 0 {
			if err := s.flushLocked(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// cork makes Write collect until flush.
func (s *socket) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

// flush sends what was collected.
func (s *socket) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	if s.out == nil {
		return nil
	}
	err := s.flushLocked()
	batches.Put(s.out)
	s.out = nil
	return err
}

func (s *socket) flushLocked() error {
	_, err := s.Conn.Write(s.out[:s.n])
	s.n = 0
	return err
}
