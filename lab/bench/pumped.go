package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/proto/wire"
)

const (
	pumpName     = "TLS pump"
	barePumpName = "TLS pump, no apps"

	quicPumpName     = "quic-go pump"
	bareQUICPumpName = "quic-go, no apps"

	pumpShift = 30000 // from a service's port to where the entry's pump listens for it
)

// pumped measures what goes through a pair of pumps to a service, made for this one measurement: measure gets the address
// where the client's application makes so many connections.
func (w *world) pumped(over wire.Transports, port uint16, connections int, measure func(addr string) ([]float64, error)) ([]float64, error) {
	entry, exit, end, err := w.pumps(over, connections)
	if err != nil {
		return nil, err
	}
	defer end()
	entry.Application = fmt.Sprintf("127.0.0.1:%d", port+pumpShift)
	exit.Application = fmt.Sprintf("127.0.0.1:%d", port)
	far, err := w.startPump(w.service, exit)
	if err != nil {
		return nil, err
	}
	defer far.Kill()
	near, err := w.startPump(w.client, entry)
	if err != nil {
		return nil, err
	}
	defer near.Kill()
	near.WaitLog(pumpReady)
	return measure(entry.Application)
}

// barePumped measures goodput from one pump's memory to the other's. The far one is in this program and counts as the
// sink does.
func (w *world) barePumped(over wire.Transports, connections int) ([]float64, error) {
	entry, exit, end, err := w.pumps(over, connections)
	if err != nil {
		return nil, err
	}
	defer end()
	near, err := w.startPump(w.client, entry)
	if err != nil {
		return nil, err
	}
	defer near.Kill()
	before := w.services.received.Load()
	conns, err := exit.connect(w.t.Context(), sockets{
		dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return w.service.DialContext(ctx, network, netip.MustParseAddrPort(addr))
		},
		udp: func() (*net.UDPConn, error) { return w.service.ListenUDP(0), nil },
	})
	if err != nil {
		return nil, err
	}
	var reading sync.WaitGroup
	for _, conn := range conns {
		reading.Go(func() { drain(conn, &w.services.received) })
	}
	rate, err := w.arriving(before)
	near.Kill()
	reading.Wait()
	return []float64{rate}, err
}

// startPump starts a pump on a host.
func (w *world) startPump(host *topo.Host, p pump) (*topo.Process, error) {
	config, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	cmd := host.Command(w.self, "pump")
	cmd.Stdin = bytes.NewReader(config)
	return host.Start(cmd), nil
}

// What pumps may run over.
const (
	overTCP = wire.TransportPacket | wire.TransportSplice
	overUDP = wire.TransportUDP
)

// pumps are both ends of a pump over a session of their own, which end closes.
func (w *world) pumps(over wire.Transports, connections int) (entry, exit pump, end func(), err error) {
	relay, err := w.kernelRelay()
	if err != nil {
		return pump{}, pump{}, nil, err
	}
	credentials, err := w.pumpCredentials()
	if err != nil {
		return pump{}, pump{}, nil, err
	}
	s := relay.open(over)
	at := func(leg int) pump {
		return pump{
			Credentials: credentials[leg], Relay: relay.at(s.Ready.TCP), Packet: s.Ready.Packet[leg], UDP: s.Ready.UDP,
			Session: hex.EncodeToString(s.ID[:]), Secret: hex.EncodeToString(s.Secrets[leg][:]),
			Entry: leg == 0, Connections: connections,
		}
	}
	return at(0), at(1), func() { relay.close(s) }, nil
}

// The pumps' names.
const entryPump, exitPump = "pump-entry", "pump-exit"

// issuePumps makes the folders of both pumps' credentials.
func (w *world) issuePumps() (dirs [2]string, err error) {
	for i, name := range []string{entryPump, exitPump} {
		if dirs[i], err = w.issueTo(name); err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}
