package topo

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// EchoUDP sends back each datagram that reaches the host's port, until the test ends.
func (n *Node) EchoUDP(port uint16) {
	n.t.Helper()
	ended := make(chan struct{})
	n.t.Cleanup(func() { <-ended }) // after the socket is closed
	conn := n.ListenUDP(port)
	go func() {
		defer close(ended)
		b := make([]byte, 1<<16)
		for {
			size, from, err := conn.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.WriteToUDPAddrPort(b[:size], from) // an error is a lost datagram
			}
		}
	}()
}

// EchoTCP sends back what comes over each connection to the host's port, until the test ends.
func (n *Node) EchoTCP(port uint16) {
	n.t.Helper()
	Echo(n.t, n.Listen(port))
}

// Echo sends back what comes over each connection of a listener, and closes one whose other side is at its end. When stop
// is called, or the test ends, it closes the listener and all connections.
func Echo(t testing.TB, ln net.Listener) (stop func()) {
	var running sync.WaitGroup
	var mu sync.Mutex // guards the following
	open := make(map[net.Conn]bool)
	stopped := false
	take := func(conn net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			open[conn] = true
		}
		return !stopped
	}
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				if take(conn) {
					io.Copy(conn, conn)
				}
				mu.Lock()
				defer mu.Unlock()
				delete(open, conn)
			})
		}
	})
	stop = func() {
		ln.Close()
		mu.Lock()
		stopped = true
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}
