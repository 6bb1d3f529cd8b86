package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	directTLSName  = "TLS pump, direct"
	directQUICName = "quic-go pump, direct"

	// pumpPort is where an exit's pump takes connections, past NAT b, and pumpListens what it says when it does.
	pumpPort    = 7008
	pumpListens = "pump listens"
)

// directly makes the connections without a relay.
func (p pump) directly(ctx context.Context, credentials *identity.Credentials) ([]io.ReadWriteCloser, error) {
	port := p.Direct
	if p.Entry {
		port = 0
	}
	if p.UDP != 0 {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(os.Stderr, pumpListens)
		return p.quicOver(ctx, conn, p.Relay, credentials)
	}
	next := func() (net.Conn, error) { return net.Dial("tcp", p.Relay.String()) }
	if !p.Entry {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		fmt.Fprintln(os.Stderr, pumpListens)
		next = ln.Accept
	}
	var conns []io.ReadWriteCloser
	for range p.Connections {
		raw, err := next()
		if err != nil {
			return nil, err
		}
		conn, err := p.secure(ctx, raw, credentials)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// pumpedDirectly measures goodput through a pair of pumps, which find each other through a port that NAT b forwards.
func (w *world) pumpedDirectly(over wire.Transports, connections int) ([]float64, error) {
	credentials, err := w.pumpCredentials()
	if err != nil {
		return nil, err
	}
	entry := pump{
		Credentials: credentials[0], Relay: netip.AddrPortFrom(w.natB.Addr(), pumpPort), Direct: pumpPort,
		Entry: true, Connections: connections, Application: fmt.Sprintf("127.0.0.1:%d", sinkPort+pumpShift),
	}
	if over == overUDP {
		entry.UDP = pumpPort
	}
	exit := entry
	exit.Credentials, exit.Entry, exit.Application = credentials[1], false, fmt.Sprintf("127.0.0.1:%d", sinkPort)
	far, err := w.startPump(w.service, exit)
	if err != nil {
		return nil, err
	}
	defer far.Kill()
	far.WaitLog(pumpListens)
	near, err := w.startPump(w.client, entry)
	if err != nil {
		return nil, err
	}
	defer near.Kill()
	near.WaitLog(pumpReady)
	return w.goodput(entry.Application, connections)
}
