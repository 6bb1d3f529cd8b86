package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// pumpReady is what a pump says when it is.
const pumpReady = "pump is ready"

// pump is one end of the least that a forwarder over TLS 1.3 can be: it copies blocks of 256 KiB between an application's
// socket and a crypto/tls connection of its own, over a session of the same relay program in the same mode. It has the keys, the suites and
// the number of processes that Netport has, and so bounds what a forwarder in Go can do. This program plays it with the
// subcommand pump, which reads a pump as JSON.
type pump struct {
	Credentials string         `json:"credentials"` // folder
	Relay       netip.AddrPort `json:"relay"`       // the session's port
	Packet      uint16         `json:"packet"`      // the leg's first port for packet mode, 0: none
	UDP         uint16         `json:"udp"`         // the session's port for UDP, 0: none; then it is a pump over QUIC
	Session     string         `json:"session"`     // both in hexadecimal
	Secret      string         `json:"secret"`      // of the leg
	Entry       bool           `json:"entry"`       // leg 0, the TLS client, else leg 1
	Connections int            `json:"connections"` // one for each of the application's
	// Direct is the port at which the exit takes what the entry dials there, at the address of Relay, which is no relay
	// then. 0: they meet at a relay. UDP says whether it is a pump over QUIC.
	Direct uint16 `json:"direct,omitempty"`
	// Application is where the entry listens, and what the exit dials. An entry without one makes what it sends.
	Application string `json:"application,omitempty"`
}

// runPump plays a pump until its connections have ended. It says when it is ready.
func runPump(config io.Reader) error {
	var p pump
	if err := json.NewDecoder(config).Decode(&p); err != nil {
		return err
	}
	conns, err := p.connect(context.Background(), sockets{
		dial: new(net.Dialer).DialContext,
		udp:  func() (*net.UDPConn, error) { return net.ListenUDP("udp4", nil) },
	})
	if err != nil {
		return err
	}
	application, err := p.applications()
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, pumpReady)
	var running sync.WaitGroup
	defer running.Wait()
	for _, conn := range conns {
		app, err := application()
		if err != nil {
			return err
		}
		running.Go(func() { move(conn, app) })
		running.Go(func() { move(app, conn) })
	}
	return nil
}

// applications returns what makes the application's connections.
func (p pump) applications() (func() (io.ReadWriteCloser, error), error) {
	if p.Application == "" {
		return func() (io.ReadWriteCloser, error) { return zeros{}, nil }, nil
	}
	if !p.Entry {
		return func() (io.ReadWriteCloser, error) { return net.Dial("tcp", p.Application) }, nil
	}
	ln, err := net.Listen("tcp", p.Application)
	if err != nil {
		return nil, err
	}
	return func() (io.ReadWriteCloser, error) { return ln.Accept() }, nil
}

// move copies blocks until one side ends, and ends both.
func move(to io.WriteCloser, from io.ReadCloser) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, block)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// zeros is an application that always has a block to send.
type zeros struct{}

func (zeros) Read(b []byte) (int, error)  { return len(b), nil }
func (zeros) Write(b []byte) (int, error) { return len(b), nil }
func (zeros) Close() error                { return nil }

// sockets are where a pump gets its own from.
type sockets struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	udp  func() (*net.UDPConn, error)
}

// connect makes the connections to the peer: each proves its leg to the relay, which joins it with the peer's of the same
// number, and is then TLS from end to end. Over UDP it is one leg with one QUIC connection, and streams of that.
func (p pump) connect(ctx context.Context, from sockets) ([]io.ReadWriteCloser, error) {
	credentials, err := daemon.LoadCredentials(p.Credentials, identity.Portal)
	if err != nil {
		return nil, err
	}
	if p.Direct != 0 {
		return p.directly(ctx, credentials)
	}
	id := leg.ID{Leg: 1}
	if p.Entry {
		id.Leg = 0
	}
	if err := id.Session.UnmarshalText([]byte(p.Session)); err != nil {
		return nil, err
	}
	var secret wire.Secret
	if n, err := hex.Decode(secret[:], []byte(p.Secret)); err != nil || n != len(secret) {
		return nil, fmt.Errorf("the leg's secret has %d bytes: %w", n, err)
	}
	if p.UDP != 0 {
		conn, err := from.udp()
		if err != nil {
			return nil, err
		}
		return p.quicStreams(ctx, conn, id, secret, credentials)
	}
	var conns []io.ReadWriteCloser
	for number := range p.Connections {
		id.Connection = uint16(number)
		raw, err := p.dial(ctx, id, secret, from.dial)
		if err != nil {
			return nil, err
		}
		conn, err := p.secure(ctx, raw, credentials)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", number, err)
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// secure makes TLS of a connection to the peer.
func (p pump) secure(ctx context.Context, raw net.Conn, credentials *identity.Credentials) (*tls.Conn, error) {
	expect := identity.Expect(identity.Portal, "")
	conn := tls.Server(raw, credentials.ServerTLS(identity.ProtocolTunnel, expect))
	if p.Entry {
		conn = tls.Client(raw, credentials.ClientTLS(identity.ProtocolTunnel, expect))
	}
	return conn, conn.HandshakeContext(ctx)
}

// dial makes a connection that the relay joins with the peer's: in packet mode where the session has it, as portals do,
// else in splice mode.
func (p pump) dial(ctx context.Context, id leg.ID, secret wire.Secret, dial func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	if p.Packet != 0 {
		return dial(ctx, "tcp", packetPort(p.Relay.Addr(), p.Packet, int(id.Connection)).String())
	}
	raw, err := dial(ctx, "tcp", p.Relay.String())
	if err != nil {
		return nil, err
	}
	_, err = raw.Write(leg.NewPreface(id).AppendTo(nil, secret))
	return raw, err
}

// packetPort is where a leg makes its connection of that number in packet mode.
func packetPort(relay netip.Addr, first uint16, connection int) netip.AddrPort {
	return netip.AddrPortFrom(relay, first+uint16(connection%leg.PacketPorts))
}
