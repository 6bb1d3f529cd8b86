package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/leg/legtest"
	"github.com/netport/netport/proto/wire"
)

// pumpWindows let QUIC fill what these links carry.
var pumpWindows = &quic.Config{
	InitialStreamReceiveWindow: 4 << 20, MaxStreamReceiveWindow: 16 << 20,
	InitialConnectionReceiveWindow: 8 << 20, MaxConnectionReceiveWindow: 32 << 20,
	MaxIdleTimeout: 5 * time.Second, KeepAlivePeriod: time.Second, // so that a killed peer is soon noticed
}

// quicStreams binds the leg to the socket and makes a QUIC connection over it, from end to end, with its streams. The first
// byte of each is the entry's, so that the exit hears of it.
func (p pump) quicStreams(ctx context.Context, conn *net.UDPConn, id leg.ID, secret wire.Secret, credentials *identity.Credentials) ([]io.ReadWriteCloser, error) {
	relay := netip.AddrPortFrom(p.Relay.Addr(), p.UDP)
	if _, err := legtest.Bind(ctx, leg.NewBinder(id, secret, 1), conn, relay); err != nil {
		return nil, err
	}
	return p.quicOver(ctx, conn, relay, credentials)
}

// quicOver makes the connection over a socket; the entry's peer, or what stands for it, is at the address.
func (p pump) quicOver(ctx context.Context, conn *net.UDPConn, to netip.AddrPort, credentials *identity.Credentials) ([]io.ReadWriteCloser, error) {
	transport := &quic.Transport{Conn: conn}
	expect := identity.Expect(identity.Portal, "")
	var streams []io.ReadWriteCloser
	if p.Entry {
		peer, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(to), credentials.ClientTLS(identity.ProtocolTunnel, expect), pumpWindows)
		if err != nil {
			return nil, fmt.Errorf("QUIC: %w", err)
		}
		for range p.Connections {
			s, err := peer.OpenStreamSync(ctx)
			if err == nil {
				_, err = s.Write([]byte{0})
			}
			if err != nil {
				return nil, fmt.Errorf("QUIC: %w", err)
			}
			streams = append(streams, s)
		}
		return streams, nil
	}
	ln, err := transport.Listen(credentials.ServerTLS(identity.ProtocolTunnel, expect), pumpWindows)
	if err != nil {
		return nil, fmt.Errorf("QUIC: %w", err)
	}
	peer, err := ln.Accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("QUIC: %w", err)
	}
	for range p.Connections {
		s, err := peer.AcceptStream(ctx)
		if err == nil {
			_, err = io.ReadFull(s, make([]byte, 1))
		}
		if err != nil {
			return nil, fmt.Errorf("QUIC: %w", err)
		}
		streams = append(streams, s)
	}
	return streams, nil
}
