package carrier_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// Both portals work out the same from a carrier, and nobody else does.
func TestBindingIsTheSameOnBothSidesAndNowhereElse(t *testing.T) {
	seen := make(map[[32]byte]bool)
	for range 2 {
		for _, kind := range carriertest.Kinds {
			client, server := carriertest.Pair(t, kind)
			if client.Binding() != server.Binding() || client.Binding() == [32]byte{} {
				t.Errorf("%v: bindings %x and %x", kind, client.Binding(), server.Binding())
			}
			seen[client.Binding()] = true
			if client.Kind() != kind || !client.Client() || server.Client() ||
				client.Peer().DNSNames[0] != "server" || server.Peer().DNSNames[0] != "client" {
				t.Errorf("%v: kind %v, peers %v and %v", kind, client.Kind(), client.Peer().DNSNames, server.Peer().DNSNames)
			}
			client.Abort(errors.New("enough"))
			server.Abort(errors.New("enough"))
		}
	}
	if len(seen) != 4 {
		t.Errorf("4 carriers have %d bindings", len(seen))
	}
}

// The TLS client of a tunnel that goes on says so and waits; the server decides
// and answers.
func TestHelloIsExchangedBeforeAnythingElse(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := carriertest.PairOf(t, kind, wire.SessionID{7}, 3)
		mine := wire.TunnelHello{Tunnel: wire.TunnelID{1}, Proof: [32]byte{2}}
		its := wire.TunnelHello{Tunnel: wire.TunnelID{3}, Proof: [32]byte{4}}
		client.SendHello(mine)
		answered := make(chan wire.TunnelHello, 1)
		var both sync.WaitGroup
		both.Go(func() {
			m, err := client.AwaitHello(t.Context())
			if err != nil {
				t.Error(err)
			}
			answered <- m
		})
		got, err := server.AwaitHello(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		filled := func(m wire.TunnelHello) wire.TunnelHello {
			m.Version, m.Session, m.Connection = wire.TunnelVersion, wire.SessionID{7}, 3
			return m
		}
		if got != filled(mine) {
			t.Errorf("the server heard %+v", got)
		}
		if len(answered) > 0 {
			t.Error("the client has heard what was not said")
		}
		server.SendHello(its)
		ctx, cancel := context.WithCancel(context.Background())
		defer both.Wait()
		defer cancel()
		s := &one{Conn: server}
		s.run(ctx, &both)
		if got := <-answered; got != filled(its) {
			t.Errorf("the client heard %+v", got)
		}
		c := &one{Conn: client}
		c.run(ctx, &both)
		client.Lane(1, &script{frames: [][]byte{open(1)}}).Write()
		if got := <-s.got; got.header.Stream != 1 {
			t.Errorf("first came %+v", got.header)
		}
	})
}

// A HELLO that Run reads goes to the Handler, before any frame.
func TestHelloGoesToTheHandler(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := carriertest.Pair(t, kind)
		client.SendHello(wire.TunnelHello{Tunnel: wire.TunnelID{1}})
		server.SendHello(wire.TunnelHello{})
		no := errors.New("no such tunnel")
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		c := &one{Conn: client}
		c.run(ctx, &running)
		client.Lane(1, &script{frames: [][]byte{open(1)}}).Write()
		h := &refusing{sink: make(sink, 10), err: no}
		if err := server.Run(ctx, h); !errors.Is(err, no) || h.hello.Tunnel != (wire.TunnelID{1}) || len(h.sink) > 0 {
			t.Errorf("Run: %v after %+v and %d frames", err, h.hello, len(h.sink))
		}
	})
}

type refusing struct {
	sink
	err   error
	hello wire.TunnelHello
}

func (r *refusing) Hello(m wire.TunnelHello) error {
	r.hello = m
	return r.err
}

// A peer that says another session or number, or nothing, is refused.
func TestHelloOfAnotherSessionEndsTheCarrier(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		cc, sc := carriertest.TLS(t)
		var client, server carrier.Conn
		var errs [2]error
		var both sync.WaitGroup
		one, other := carrier.Config{Client: true, Session: wire.SessionID{1}, TLS: cc}, carrier.Config{Session: wire.SessionID{2}, TLS: sc}
		if kind == wire.CarrierQUIC {
			a, b := carriertest.QUIC(t, cc, sc)
			client, errs[0] = carrier.OverQUIC(t.Context(), a, one)
			server, errs[1] = carrier.OverQUIC(t.Context(), b, other)
		} else {
			a, b := carriertest.TCP(t)
			both.Go(func() { client, errs[0] = carrier.OverTCP(t.Context(), a, one) })
			server, errs[1] = carrier.OverTCP(t.Context(), b, other)
			both.Wait()
		}
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		client.SendHello(wire.TunnelHello{})
		both.Go(func() { client.AwaitHello(t.Context()) })
		defer both.Wait()
		if _, err := server.AwaitHello(t.Context()); err == nil || !strings.Contains(err.Error(), "HELLO names session") {
			t.Errorf("AwaitHello: %v", err)
		}
	})
}
