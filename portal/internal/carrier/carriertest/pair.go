package carriertest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

// Kinds are the kinds of carrier, for tests over all of them.
var Kinds = []wire.CarrierKind{wire.CarrierTCP, wire.CarrierQUIC}

// Pair returns two carriers of that kind, joined over loopback, with both peers
// proven and nothing sent. Run or Abort must follow on both.
func Pair(t testing.TB, kind wire.CarrierKind) (client, server carrier.Conn) {
	t.Helper()
	return PairOf(t, kind, wire.NewSessionID(), 0)
}

// PairOf is Pair for one connection of a session.
func PairOf(t testing.TB, kind wire.CarrierKind, session wire.SessionID, connection uint16) (client, server carrier.Conn) {
	t.Helper()
	cc, sc := TLS(t)
	var err error
	if kind == wire.CarrierQUIC {
		a, b := QUIC(t, cc, sc)
		client, server, err = OverQUIC(context.Background(), a, b, session, connection)
	} else {
		a, b := TCP(t)
		client, server, err = OverTCP(context.Background(), a, b, cc, sc, session, connection)
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// OverTCP makes a carrier of each end of a connection.
func OverTCP(ctx context.Context, a, b net.Conn, clientTLS, serverTLS *tls.Config, session wire.SessionID, connection uint16) (client, server carrier.Conn, err error) {
	return both(session, connection,
		func(cfg carrier.Config) (carrier.Conn, error) {
			cfg.TLS = clientTLS
			return carrier.OverTCP(ctx, a, cfg)
		},
		func(cfg carrier.Config) (carrier.Conn, error) {
			cfg.TLS = serverTLS
			return carrier.OverTCP(ctx, b, cfg)
		})
}

// OverQUIC makes a carrier of each end of a QUIC connection.
func OverQUIC(ctx context.Context, a, b *quic.Conn, session wire.SessionID, connection uint16) (client, server carrier.Conn, err error) {
	return both(session, connection,
		func(cfg carrier.Config) (carrier.Conn, error) { return carrier.OverQUIC(ctx, a, cfg) },
		func(cfg carrier.Config) (carrier.Conn, error) { return carrier.OverQUIC(ctx, b, cfg) })
}

func both(session wire.SessionID, connection uint16, atClient, atServer func(carrier.Config) (carrier.Conn, error)) (client, server carrier.Conn, err error) {
	var two sync.WaitGroup
	var errs [2]error
	two.Go(func() { server, errs[1] = atServer(carrier.Config{Session: session, Connection: connection}) })
	client, errs[0] = atClient(carrier.Config{Client: true, Session: session, Connection: connection})
	two.Wait()
	return client, server, errors.Join(errs[:]...)
}

// QUIC returns the two ends of a QUIC connection over loopback. Their sockets are
// closed with the test.
func QUIC(t testing.TB, clientTLS, serverTLS *tls.Config) (client, server *quic.Conn) {
	t.Helper()
	client, server, err := JoinQUIC(context.Background(), transport(t), transport(t), clientTLS, serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// JoinQUIC makes a QUIC connection from one transport to another.
func JoinQUIC(ctx context.Context, from, to *quic.Transport, clientTLS, serverTLS *tls.Config) (client, server *quic.Conn, err error) {
	l, err := to.Listen(serverTLS, carrier.QUICConfig())
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	var two sync.WaitGroup
	var errs [2]error
	two.Go(func() { server, errs[1] = l.Accept(ctx) })
	client, errs[0] = from.Dial(ctx, to.Conn.LocalAddr(), clientTLS, carrier.QUICConfig())
	if errs[0] != nil {
		l.Close()
	}
	two.Wait()
	return client, server, errors.Join(errs[:]...)
}

func transport(t testing.TB) *quic.Transport {
	t.Helper()
	// Or quic-go writes to standard error how large it wants the socket's buffer.
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: c}
	t.Cleanup(func() {
		tr.Close()
		c.Close()
	})
	return tr
}
