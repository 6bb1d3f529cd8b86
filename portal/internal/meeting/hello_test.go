package meeting

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/wire"
)

// tunnels are what a portal has with its peer: the first is named.
type tunnels struct {
	mu      sync.Mutex
	list    []tunnel.Identity
	lives   bool // they have carriers that answer, so no doubt ends them
	doubted int
}

func (s *tunnels) Named() (tunnel.Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return tunnel.Identity{}, false
	}
	return s.list[0], true
}

func (s *tunnels) Known(id wire.TunnelID) (tunnel.Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.list {
		if t.ID == id {
			return t, true
		}
	}
	return tunnel.Identity{}, false
}

func (s *tunnels) Doubt(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubted++
	if !s.lives {
		s.list = nil
	}
}

// identityOf returns the identity of a tunnel that began on the carrier with a
// binding of that byte.
func identityOf(peer string, b byte) tunnel.Identity {
	return tunnel.NewIdentity(peer, [32]byte{b})
}

// forged names the tunnel of b and does not have its secret.
func forged(peer string, b byte) tunnel.Identity {
	t := identityOf(peer, ^b)
	t.ID = identityOf(peer, b).ID
	return t
}

func TestCarrierBelongsToTheTunnelThatBothProve(t *testing.T) {
	who := newPortals(t)
	type has = []tunnel.Identity
	one, two, three := identityOf("x", 1), identityOf("x", 2), identityOf("x", 3)
	for name, test := range map[string]struct {
		client, server has
		lives          bool             // what is doubted has carriers that answer
		want           *tunnel.Identity // nil: a new tunnel
		fails          bool             // the carrier is closed
		doubted        [2]int           // client's, server's
	}{
		"neither has one":                 {doubted: [2]int{0, 1}},
		"both have it":                    {client: has{one}, server: has{one}, want: &one},
		"the server has a newer one too":  {client: has{one}, server: has{two, one}, want: &one},
		"the server has begun anew":       {client: has{one}, doubted: [2]int{1, 1}},
		"the client has begun anew":       {server: has{one}, doubted: [2]int{0, 1}},
		"each has another":                {client: has{one}, server: has{two}, doubted: [2]int{1, 1}},
		"the server's other one lives":    {client: has{one}, server: has{two}, lives: true, doubted: [2]int{1, 1}},
		"the client has the server's too": {client: has{one, three}, server: has{three}, lives: true, doubted: [2]int{1, 1}},
		"the client's proof is wrong":     {client: has{forged("x", 1)}, server: has{one}, fails: true},
		"the server's proof is wrong":     {client: has{one}, server: has{forged("x", 1)}, fails: true},
		"the server names it and lies":    {client: has{one}, server: has{forged("x", 1), two}, fails: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, s := sessions()
			client := newSide(c, fixed{&given{conn: a}}, who.client, &tunnels{list: test.client, lives: test.lives})
			server := newSide(s, fixed{&given{conn: b}}, who.server, &tunnels{list: test.server, lives: test.lives})
			ctx, cancel := context.WithCancel(context.Background())
			go client.serve(ctx, client.First)
			go server.serve(ctx, server.First)
			synctest.Wait()
			for i, one := range []*side{client, server} {
				select {
				case <-one.up:
					if test.fails {
						t.Errorf("%s: side %d has tunnel %v", name, i, one.met.Tunnel.ID)
					}
				default:
					if !test.fails {
						t.Errorf("%s: side %d is not up: %v", name, i, one.err)
					}
				}
				if got := one.Tunnels.(*tunnels).doubted; got != test.doubted[i] {
					t.Errorf("%s: side %d doubted its tunnels %d times, want %d", name, i, got, test.doubted[i])
				}
			}
			if !test.fails {
				if client.met.Tunnel != server.met.Tunnel && client.met.Tunnel.ID != server.met.Tunnel.ID {
					t.Errorf("%s: tunnel %v at the client, %v at the server", name, client.met.Tunnel.ID, server.met.Tunnel.ID)
				}
				if test.want == nil && (!client.met.New || !server.met.New) || test.want != nil && (client.met.New || server.met.New || client.met.Tunnel.ID != test.want.ID) {
					t.Errorf("%s: tunnel %v, new %t and %t", name, client.met.Tunnel.ID, client.met.New, server.met.New)
				}
			}
			cancel()
			<-client.over
			<-server.over
		})
	}
}

// A further carrier belongs to the tunnel it was announced on, whatever else the two have. The TLS client does not wait for
// the server's word on that: what it sends follows its HELLO, and it gives the carrier up when the word is another.
func TestFurtherCarrierIsOfItsTunnelOnly(t *testing.T) {
	who := newPortals(t)
	one, two := identityOf("x", 1), identityOf("x", 2)
	for _, test := range []struct {
		client, server tunnel.Identity
		works          bool
	}{{one, one, true}, {one, two, false}, {forged("x", 1), one, false}, {one, forged("x", 1), false}} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, s := sessions()
			client := newSide(c, fixed{&given{conn: a}}, who.client, &tunnels{list: []tunnel.Identity{two}})
			server := newSide(s, fixed{&given{conn: b}}, who.server, &tunnels{list: []tunnel.Identity{two}})
			n, ok := client.Next(wire.CarrierTCP)
			if !ok || n != 1 {
				t.Fatalf("number %d, %t", n, ok)
			}
			if _, ok := server.Next(wire.CarrierTCP); ok {
				t.Error("the TLS server may announce carriers")
			}
			ctx, cancel := context.WithCancel(context.Background())
			more := func(s *side, of tunnel.Identity) func(context.Context) (Met, error) {
				return func(ctx context.Context) (Met, error) { return s.More(ctx, n, wire.CarrierTCP, of) }
			}
			go client.serve(ctx, more(client, test.client))
			synctest.Wait()
			go server.serve(ctx, more(server, test.server))
			synctest.Wait()
			<-client.up
			if client.met.New || client.met.Tunnel.ID != one.ID {
				t.Errorf("the client has a carrier of tunnel %v, new %t", client.met.Tunnel.ID, client.met.New)
			}
			select {
			case <-server.up:
				if !test.works || server.met.New || server.met.Tunnel.ID != one.ID {
					t.Errorf("the server has a carrier of tunnel %v, new %t", server.met.Tunnel.ID, server.met.New)
				}
			default:
				if test.works {
					t.Errorf("the server has none: %v", server.err)
				}
			}
			select {
			case <-client.heard:
				if !test.works {
					t.Error("the client's tunnel was told of a HELLO that is wrong")
				}
			case <-client.over:
				if test.works || client.err == nil {
					t.Errorf("the client's carrier ended: %v", client.err)
				}
			}
			for i, s := range []*side{client, server} {
				if s.Tunnels.(*tunnels).doubted > 0 {
					t.Errorf("side %d doubts its tunnels", i)
				}
			}
			cancel()
			<-client.over
			<-server.over
		})
	}
}

// A server that takes whatever proof the client has, and has none of its own, gets no carrier; nor does one that names
// another tunnel.
func TestServerThatProvesNothingGetsNoCarrier(t *testing.T) {
	who := newPortals(t)
	one := identityOf("x", 1)
	for _, says := range []tunnel.Identity{forged("x", 1), identityOf("x", 2), {}} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, s := sessions()
			client := newSide(c, fixed{&given{conn: a}}, who.client, &tunnels{})
			liar := newSide(s, fixed{&given{conn: b}}, who.server, &tunnels{})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go client.serve(ctx, func(ctx context.Context) (Met, error) { return client.Join(ctx, one) })
			conn, err := liar.prove(ctx, &given{conn: b})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.AwaitHello(ctx); err != nil {
				t.Fatal(err)
			}
			var hello wire.TunnelHello
			if says.ID != hello.Tunnel { // else it names none
				hello = wire.TunnelHello{Tunnel: says.ID, Proof: says.Proof(conn.Binding(), false)}
			}
			conn.SendHello(hello)
			go conn.Run(ctx, liar)
			<-client.over
			if want := map[bool]error{true: errForeign, false: errOther}[says.ID == one.ID]; !errors.Is(client.err, want) || len(client.heard) > 0 {
				t.Errorf("tunnel %v: %v, %d HELLOs were heard; want %v", says.ID, client.err, len(client.heard), want)
			}
		})
	}
}

func TestNumberOfFurtherCarrierIsUsedOnce(t *testing.T) {
	_, info := sessions()
	m := New(Config{Session: info, Leg: fixed{}})
	for _, test := range []struct {
		n    uint16
		well bool
	}{{0, false}, {2, true}, {2, false}, {1, true}, {1, false}, {maxConnections - 1, true}, {maxConnections, false}, {1<<16 - 1, false}} {
		_, err := m.More(t.Context(), test.n, wire.CarrierTCP, identityOf("x", 1))
		if got := !errors.Is(err, wire.ErrMalformed); got != test.well {
			t.Errorf("CARRIER %d: %v", test.n, err)
		}
	}
	info.Leg = 0
	m = New(Config{Session: info, Leg: legs{r: newRelayed(0), side: "client"}})
	for n := 1; n < maxConnections; n++ {
		if got, ok := m.Next(wire.CarrierTCP); !ok || int(got) != n {
			t.Fatalf("number %d, %t, want %d", got, ok, n)
		}
	}
	if n, ok := m.Next(wire.CarrierTCP); ok {
		t.Errorf("number %d of a session that has had all", n)
	}
	if n, ok := New(m.Config).Next(wire.CarrierQUIC); ok {
		t.Errorf("number %d for a kind that the session has not", n)
	}
	m.Config.Again = true
	if n, ok := m.Next(wire.CarrierTCP); !ok || n != 1 {
		t.Errorf("number %d, %t, where they come around", n, ok)
	}
	info.Leg = 1
	m = New(Config{Session: info, Leg: fixed{}, Again: true})
	for range 2 {
		if _, err := m.More(t.Context(), 1, wire.CarrierTCP, identityOf("x", 1)); errors.Is(err, wire.ErrMalformed) {
			t.Errorf("where they come around: %v", err)
		}
	}
}

// A peer that proves itself and then says nothing holds nobody up for ever.
func TestPeerWithoutHelloIsGivenUp(t *testing.T) {
	who := newPortals(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		_, info := sessions()
		server := newSide(info, fixed{&given{conn: b}}, who.server, &tunnels{})
		client, _ := sessions()
		client.ID = info.ID
		mute := newSide(client, fixed{&given{conn: a}}, who.client, &tunnels{})
		began := time.Now()
		go server.serve(context.Background(), server.Again)
		if _, err := mute.prove(context.Background(), &given{conn: a}); err != nil {
			t.Fatal(err)
		}
		<-server.over
		if took := time.Since(began); took != joinTime || !strings.Contains(server.err.Error(), "within 10s") {
			t.Errorf("given up after %v: %v", took, server.err)
		}
	})
}
