package control

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// names is a name server on loopback that answers every A query as its func
// says; with nothing if that returns the zero Addr.
func names(t *testing.T, answer func() netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			a := answer()
			if n < 12+5 || !a.IsValid() {
				continue
			}
			// The question as it came, and one address if it is for IPv4.
			question := buf[12:n]
			end := bytes.IndexByte(question, 0) + 5 // the name, type and class
			question = question[:end]
			b := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if question[end-3] == 1 {
				b[7] = 1
				b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				b = append(b, a.AsSlice()...)
			}
			conn.WriteToUDPAddrPort(b, from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

// servers runs a server at 127.0.0.1 and a listener of somebody else's at
// 127.0.0.2, both at the same port, which is returned.
func servers(t *testing.T, r roles, somebody func(net.Conn)) (port string) {
	t.Helper()
	serve := func(address string, use func(net.Conn)) (net.Listener, error) {
		l, err := net.Listen("tcp4", address)
		if err != nil {
			return nil, err
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { use(c) })
			}
		})
		t.Cleanup(func() {
			l.Close()
			serving.Wait()
		})
		return l, nil
	}
	for range 20 {
		l, err := serve("127.0.0.1:0", func(c net.Conn) {
			defer c.Close()
			a, err := Accept(context.Background(), c, r.serverTLS())
			if err != nil {
				return
			}
			conn := WelcomePortal(a, wire.Welcome{Version: wire.ControlVersion}, discard)
			conn.Close(wire.ReasonShutdown, "")
			conn.Run(context.Background(), func(wire.FromPortal) error { return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		if _, err := serve("127.0.0.2:"+port, somebody); err == nil {
			return port
		}
	}
	t.Fatal("no port is free at both addresses")
	return ""
}

// TestServerIsFoundWhileItsNameIsNot: the name was right once; then its name
// server says nothing, or names somebody who refuses, is another server, or
// takes connections and is silent.
func TestServerIsFoundWhileItsNameIsNot(t *testing.T) {
	r := newRoles(t)
	stranger := newAuthority(t).issue(t, identity.Server, "s")
	right, wrong := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	for _, tt := range []struct {
		name     string
		answer   netip.Addr
		somebody func(net.Conn)
		within   time.Duration
	}{
		{"the name server is silent", netip.Addr{}, nil, nameTime + time.Second},
		{"somebody closes", wrong, func(c net.Conn) { c.Close() }, time.Second},
		{"somebody else's server", wrong, func(c net.Conn) {
			defer c.Close()
			Accept(context.Background(), c, stranger.ServerTLS(identity.ProtocolControl, anyone))
		}, time.Second},
		{"somebody is silent", wrong, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1)); c.Close() }, greetTime + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			port := servers(t, r, tt.somebody)
			var mu sync.Mutex
			now := right
			d := r.dialer()
			d.resolver = names(t, func() netip.Addr {
				mu.Lock()
				defer mu.Unlock()
				return now
			})
			changed := 0
			d.Book = NewBook(nil, func() { changed++ })
			address := "server.example:" + port
			dial := func() error {
				conn, _, err := d.Dial(t.Context(), address)
				if err == nil {
					conn.end(nil)
				}
				return err
			}
			if err := dial(); err != nil {
				t.Fatal(err)
			}
			if got := d.Book.good("server.example"); !slices.Equal(got, []netip.Addr{right}) || changed != 1 {
				t.Fatalf("noted %v, said so %d times", got, changed)
			}
			mu.Lock()
			now = tt.answer
			mu.Unlock()
			begin := time.Now()
			if err := dial(); err != nil {
				t.Errorf("with its last good address: %v", err)
			}
			if took := time.Since(begin); took > tt.within {
				t.Errorf("took %v, want %v", took, tt.within)
			}
			if got := d.Book.good("server.example"); !slices.Equal(got, []netip.Addr{right}) {
				t.Errorf("noted %v: who has not proven itself is not to be remembered", got)
			}
			d.Book = nil
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if conn, _, err := d.Dial(ctx, address); err == nil {
				conn.end(nil)
				t.Error("reached without the last good address: this test tests nothing")
			}
		})
	}
}

// A server that is down is not asked twice where its name leads to what is known.
func TestKnownAddressIsDialledOnce(t *testing.T) {
	r := newRoles(t)
	dead := deadAddress(t)
	_, port, _ := net.SplitHostPort(dead)
	d := r.dialer()
	d.resolver = names(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") })
	d.Book = NewBook([]Host{{"server.example", []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}, func() {})
	_, _, err := d.Dial(t.Context(), "server.example:"+port)
	if want := "dial server server.example:" + port + ": connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	race := newRace(t.Context(), d.resolver, nil, nil, d.Book.good("server.example"), d.secure)
	defer race.stop()
	race.begin([]string{"server.example:" + port}, Way{}, false)
	race.note(<-race.raws)
	race.dialGood()
	if race.under != 0 {
		t.Errorf("dials %v again", race.tried)
	}
}

func TestBookIsBounded(t *testing.T) {
	b := NewBook(nil, func() {})
	b.reached("192.0.2.1", netip.MustParseAddr("192.0.2.1"))
	b.reached("2001:db8::1", netip.MustParseAddr("2001:db8::1"))
	if got := b.Hosts(); len(got) != 0 {
		t.Errorf("keeps what is an address anyway: %v", got)
	}
	for i := range 3 * maxHosts {
		for j := range 3 * maxGood {
			b.reached(fmt.Sprintf("s%d.example", i), netip.AddrFrom4([4]byte{192, 0, 2, byte(j)}))
		}
	}
	hosts := b.Hosts()
	if len(hosts) != maxHosts || hosts[0].Name != fmt.Sprintf("s%d.example", 3*maxHosts-1) || len(hosts[0].Addrs) != maxGood || hosts[0].Addrs[0] != netip.AddrFrom4([4]byte{192, 0, 2, 3*maxGood - 1}) {
		t.Errorf("holds %d names, the first %v", len(hosts), hosts[0])
	}
	again := NewBook(slices.Concat(hosts, hosts), func() {})
	if got := again.Hosts(); len(got) != maxHosts {
		t.Errorf("took %d names", len(got))
	}
}

// TestHurryDialsAtOnce: neither a long pause nor a dial that hangs keeps a
// portal from the server once it knows that its network has changed.
func TestHurryDialsAtOnce(t *testing.T) {
	r := newRoles(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hurry := make(chan struct{}, 1)
	d := r.dialer()
	d.Hurry = hurry
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Keep(ctx, []string{l.Addr().String()}, nil) }()
	for i := range 4 {
		begin := time.Now()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if took := time.Since(begin); i > 0 && took > hurryPause+time.Second {
			t.Errorf("dialled %v after its network changed", took)
		}
		hurry <- struct{}{}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// More servers are tried after those of the configuration, each once, and the
// one that worked last is the first.
func TestOrderOfServers(t *testing.T) {
	d := newRoles(t).dialer()
	d.More = func() []string { return []string{"b:1", "c:1"} }
	for last, want := range map[string]string{"": "a:1 b:1 c:1", "c:1": "c:1 a:1 b:1", "gone:1": "a:1 b:1 c:1"} {
		if got := strings.Join(d.order(last, []string{"a:1", "b:1"}), " "); got != want {
			t.Errorf("after %q: %s, want %s", last, got, want)
		}
	}
}

// A name that nobody answers for is said once, and not of UDP again.
func TestUnknownNameIsSaidOnce(t *testing.T) {
	d := newRoles(t).dialer()
	d.resolver = names(t, func() netip.Addr { return netip.Addr{} })
	ctx, cancel := context.WithTimeout(t.Context(), 2*portStagger)
	defer cancel()
	_, _, err := d.Dial(ctx, "server.example:443")
	if err == nil || !strings.HasPrefix(err.Error(), "dial server server.example:443: lookup server.example") || strings.Contains(err.Error(), "UDP:") {
		t.Errorf("got %v, want that the name is not found", err)
	}
}
