package control

import (
	"context"
	"net"
	"testing"

	"github.com/netport/netport/portal/internal/state"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/overquic/overquictest"
)

// How the server was reached is remembered for each network, through a restart.
func TestWayIsRememberedPerNetwork(t *testing.T) {
	s := newScript(t)
	way := wirecontrol.Way{Address: s.listener.Addr().String()}
	if got := s.client.lastWay(); got != way {
		t.Fatalf("%+v is remembered, want %+v", got, way)
	}
	s.client.NetworkChanged("the hotel's")
	if got := s.client.lastWay(); got != (wirecontrol.Way{}) {
		t.Errorf("of a network where it was never: %+v", got)
	}
	over := wirecontrol.Way{Address: "a.example:80", UDP: true}
	before := s.kept.Load()
	s.client.reached(over)
	s.client.reached(over)
	if n := s.kept.Load() - before; n != 1 {
		t.Errorf("it is written %d times", n)
	}
	var kept state.Kept
	s.client.Keep(&kept)
	again := New(Config{Credentials: s.client.Credentials, Grants: s.keeper, Network: "the hotel's", Kept: kept, Changed: func() {}, Log: s.client.Log})
	if got := again.lastWay(); got != over {
		t.Errorf("after a restart at the hotel: %+v, want %+v", got, over)
	}
	again.NetworkChanged("")
	if got := again.lastWay(); got != way {
		t.Errorf("back in the first network: %+v, want %+v", got, way)
	}
}

// serveUDP serves over UDP at the address of the script's server, and no more over TCP.
func (s *script) serveUDP() {
	s.Helper()
	s.listener.Close()
	overquictest.Serve(s.T, s.listener.Addr().(*net.TCPAddr).AddrPort(), s.tls(), func(ctx context.Context, stream *overquic.Conn) {
		if a, err := wirecontrol.Greeted(ctx, stream); err == nil {
			s.welcome(a)
		}
	})
	s.Cleanup(func() { s.conn.Abort(nil) })
}

// A connection over UDP is shown as one, and made anew in another network, where TCP may pass; not where the same
// network has another address.
func TestConnectionOverUDP(t *testing.T) {
	s := newScript(t)
	address := s.listener.Addr().String()
	s.serveUDP()
	s.client.reached(wirecontrol.Way{Address: address, UDP: true})
	s.conn.Abort(nil)
	s.connected()
	if got := s.client.Status(); got.Transport != "udp" || got.Place() != address+" over UDP" {
		t.Errorf("status says %q, %q", got.Transport, got.Place())
	}
	connects := s.client.Status().Connects
	s.client.NetworkChanged("") // the same
	s.settled()
	if n := s.client.Status().Connects; n != connects {
		t.Errorf("%d connections more in the same network", n-connects)
	}
	s.client.NetworkChanged("another")
	s.connected()
	if n := s.client.Status().Connects; n != connects+1 {
		t.Errorf("%d connections more in another network", n-connects)
	}
	if got := s.client.lastWay(); (got != wirecontrol.Way{Address: address, UDP: true}) {
		t.Errorf("%+v is remembered of it", got)
	}
}
