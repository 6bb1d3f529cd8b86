package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/topo"
)

// Ports of the services on the service's machine.
const (
	sinkPort  = 7001 // reads and counts
	echoPort  = 7002 // answers every byte
	replyPort = 7003 // answers four bytes, and closes when the client has
	firstPort = 7004 // notes when the first byte comes
)

var servicePorts = []uint16{sinkPort, echoPort, replyPort, firstPort}

// block is how much the applications write and read at once.
const block = 256 << 10

// services are the applications at the far end.
type services struct {
	received atomic.Int64   // bytes, at the sink
	first    chan time.Time // when the first byte of a connection came, at firstPort

	mu   sync.Mutex
	open int           // connections of the sink
	idle chan struct{} // closed while open is 0
}

func startServices(host *topo.Host) *services {
	s := &services{idle: make(chan struct{}), first: make(chan time.Time, 1)}
	close(s.idle)
	go serve(host.Listen(sinkPort), s.sink)
	go serve(host.Listen(echoPort), echo)
	go serve(host.Listen(replyPort), reply)
	go serve(host.Listen(firstPort), s.note)
	return s
}

// serve hands every connection to handle, until the listener is closed with the lab.
func serve(ln net.Listener, handle func(net.Conn)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

func (s *services) sink(conn net.Conn) {
	s.opened(1)
	defer s.opened(-1)
	drain(conn, &s.received)
}

// drain reads to the end and counts.
func drain(r io.Reader, count *atomic.Int64) {
	b := make([]byte, block)
	for {
		n, err := r.Read(b)
		count.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// note says when the first byte comes, and waits for the end.
func (s *services) note(conn net.Conn) {
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return
	}
	s.first <- time.Now()
	io.Copy(io.Discard, conn)
}

func (s *services) opened(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		s.idle = make(chan struct{})
	}
	if s.open += change; s.open == 0 {
		close(s.idle)
	}
}

// waitIdle waits until the sink has read all that was sent, to the end of every connection.
func (s *services) waitIdle() error {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-time.After(patience):
		return errors.New("the service still had connections long after the client closed them")
	}
}

func echo(conn net.Conn) {
	plain, err := blocking(conn)
	if err != nil {
		return
	}
	defer plain.Close()
	b := make([]byte, 64)
	for {
		n, err := plain.Read(b)
		if err != nil {
			return
		}
		if _, err := plain.Write(b[:n]); err != nil {
			return
		}
	}
}

// blocking returns a connection whose reads and writes are plain system calls that block, as those of most programs,
// without the way through Go's poller.
func blocking(conn net.Conn) (*os.File, error) {
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	return f, unix.SetNonblock(int(f.Fd()), false)
}

func reply(conn net.Conn) {
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	if _, err := conn.Write(b); err != nil {
		return
	}
	conn.Read(b) // the client closes first
}
