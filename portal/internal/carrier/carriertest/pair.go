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
)

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
	a, b := TCP(t)
	client, server, err := OverTCP(t.Context(), a, b, cc, sc, session, connection)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// OverTCP makes a carrier of each end of a connection.
func OverTCP(ctx context.Context, a, b net.Conn, clientTLS, serverTLS *tls.Config, session wire.SessionID, connection uint16) (client, server carrier.Conn, err error) {
	var both sync.WaitGroup
	var errs [2]error
	both.Go(func() {
		client, errs[0] = carrier.OverTCP(ctx, a, carrier.Config{Client: true, Session: session, Connection: connection, TLS: clientTLS})
	})
	both.Go(func() {
		server, errs[1] = carrier.OverTCP(ctx, b, carrier.Config{Session: session, Connection: connection, TLS: serverTLS})
	})
	both.Wait()
	return client, server, errors.Join(errs[:]...)
}
