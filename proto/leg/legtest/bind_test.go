package legtest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

var (
	secret = wire.NewSecret()
	id     = leg.ID{Session: wire.NewSessionID(), Leg: 1}
)

func TestBindSurvivesALossySocket(t *testing.T) {
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	server, client := listen(), listen()
	done := make(chan struct{})
	go func() {
		defer close(done)
		gate, last, buf := leg.NewGate(), leg.Binding{}, make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q, err := leg.ParseRequest(buf[:n])
			if err != nil || i == 0 { // the first packet is lost
				continue
			}
			_, answer := gate.Judge(time.Now(), q, from, secret, last)
			server.WriteToUDPAddrPort(answer, from)
		}
	}()
	want := client.LocalAddr().(*net.UDPAddr).AddrPort()
	got, err := Bind(t.Context(), leg.NewBinder(id, secret, 0), client, server.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil || got != want {
		t.Errorf("mapped %v, %v; want %v", got, err, want)
	}
	server.Close()
	<-done
}

func TestBindEndsWithItsContext(t *testing.T) {
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	silent := netip.MustParseAddrPort(client.LocalAddr().String())
	if _, err := Bind(ctx, leg.NewBinder(id, secret, 0), client, silent); !errors.Is(err, stopped) {
		t.Errorf("got %v, want %v", err, stopped)
	}
}
