package topo

import (
	"errors"
	"net"
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
