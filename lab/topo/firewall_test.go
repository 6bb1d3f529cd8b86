package topo_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// patience is how long to wait for what should come, even on a busy machine, and for what should not.
func patience(want bool) time.Duration {
	if want {
		return 10 * time.Second
	}
	return 300 * time.Millisecond
}

// passesTCP says whether a connection can be opened, as wanted or not. Refused and dropped are told apart, so that a
// rule that answers is not taken for one that drops.
func passesTCP(t *testing.T, from, to *topo.Node, port uint16, want bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience(want))
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", netip.AddrPortFrom(to.Addr(), port))
	switch {
	case err == nil:
		conn.Close()
		return true
	case isTimeout(err):
		return false
	default:
		t.Fatalf("%s to %s, port %d: %v", from.Name(), to.Name(), port, err)
		return false
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// passesUDP says whether a datagram arrives, and its answer, as wanted or not.
func passesUDP(t *testing.T, from, to *net.UDPConn, addr netip.Addr, want bool) bool {
	t.Helper()
	_, err := from.WriteToUDPAddrPort([]byte("question"), netip.AddrPortFrom(addr, portOf(to)))
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return false // by the host's own firewall, or for want of a route
	case err != nil:
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience(want))
	if err := errors.Join(to.SetReadDeadline(deadline), from.SetReadDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	_, source, err := to.ReadFromUDPAddrPort(b)
	if isTimeout(err) {
		return false
	} else if err != nil {
		t.Fatal(err)
	}
	send(t, to, "answer", source)
	if _, _, err = from.ReadFromUDPAddrPort(b); err != nil && !isTimeout(err) {
		t.Fatal(err)
	}
	return err == nil
}

func portOf(conn *net.UDPConn) uint16 { return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// inside --- gate (firewall, no NAT) --- inet --- outside
func TestFirewallsPassAndDropWhatTheyShould(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                 string
		rules                []topo.Rule
		udpOut, udpIn, tcpIn bool
		tcpOut               [2]bool // to ports 443 and 8080
	}{
		{"none", nil, true, true, true, [2]bool{true, true}},
		{"DropUnsolicited", []topo.Rule{topo.DropUnsolicited}, true, false, false, [2]bool{true, true}},
		{"DropBareSYN", []topo.Rule{topo.DropBareSYN}, true, true, false, [2]bool{true, true}},
		{"WantACK", []topo.Rule{topo.WantACK}, true, true, false, [2]bool{true, true}},
		{"BlockUDP", []topo.Rule{topo.BlockUDP}, false, false, true, [2]bool{true, true}},
		{"AllowTCP", []topo.Rule{topo.AllowTCP(80, 443)}, true, true, true, [2]bool{true, false}},
		{"AllowTCP and BlockUDP", []topo.Rule{topo.AllowTCP(443), topo.BlockUDP}, false, false, true, [2]bool{true, false}},
		{"DropAll", []topo.Rule{topo.DropAll}, false, false, false, [2]bool{}},
	} {
		for _, where := range []string{"router", "host"} {
			t.Run(tt.name+" on a "+where, func(t *testing.T) {
				l := topo.New(t)
				outside := l.Public("outside")
				gate := l.Router("gate")
				inside := gate.Host("inside")
				guard := gate.Node
				if where == "host" {
					guard = inside.Node
				}
				guard.SetRules(tt.rules...)
				outside.Listen(443)
				outside.Listen(8080)
				inside.Listen(443)
				if got := passesUDP(t, inside.ListenUDP(0), outside.ListenUDP(0), outside.Addr(), tt.udpOut); got != tt.udpOut {
					t.Errorf("UDP out: %t, want %t", got, tt.udpOut)
				}
				if got := passesUDP(t, outside.ListenUDP(0), inside.ListenUDP(0), inside.Addr(), tt.udpIn); got != tt.udpIn {
					t.Errorf("UDP in: %t, want %t", got, tt.udpIn)
				}
				for i, port := range []uint16{443, 8080} {
					if got := passesTCP(t, inside.Node, outside.Node, port, tt.tcpOut[i]); got != tt.tcpOut[i] {
						t.Errorf("TCP out to port %d: %t, want %t", port, got, tt.tcpOut[i])
					}
				}
				if got := passesTCP(t, outside.Node, inside.Node, 443, tt.tcpIn); got != tt.tcpIn {
					t.Errorf("TCP in: %t, want %t", got, tt.tcpIn)
				}
			})
		}
	}
}

func TestRulesChangeUnderALiveConnection(t *testing.T) {
	l := topo.New(t)
	outside := l.Public("outside")
	home := l.Router("home", topo.PortRestricted)
	inside := home.Host("inside")
	from, to := inside.ListenUDP(0), outside.ListenUDP(0)
	for i, rules := range [][]topo.Rule{nil, {topo.DropAll}, nil, {topo.BlockUDP}} {
		home.SetRules(rules...)
		want := len(rules) == 0
		if got := passesUDP(t, from, to, outside.Addr(), want); got != want {
			t.Errorf("step %d, rules %v: passes %t, want %t", i, rules, got, want)
		}
	}
}

// Two hosts that only dial, each the other: their SYNs meet on the way (a simultaneous open, RFC 9293, section 3.5). Filters
// without memory before both do not let that pass, as a relay would learn that forwards each side's SYN to the other.
func TestFiltersWithoutMemoryStopASimultaneousOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		rules []topo.RouterOption
		opens bool
	}{
		{"none", nil, true},
		{"DropBareSYN", []topo.RouterOption{topo.DropBareSYN}, false},
		{"WantACK", []topo.RouterOption{topo.WantACK}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := topo.New(t)
			far := topo.Uplink(link.Shape{Delay: 50 * time.Millisecond}) // more than the two need to begin
			a, b := l.Router("gate-a", tt.rules...).Host("a", far), l.Router("gate-b", tt.rules...).Host("b")
			const port = 7000
			ctx, cancel := context.WithTimeout(t.Context(), patience(tt.opens))
			defer cancel()
			opened := make(chan error)
			for from, to := range map[*topo.Host]*topo.Host{a: b, b: a} {
				go func() {
					dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
					var conn net.Conn
					var err error
					from.Do(func() { conn, err = dialer.DialContext(ctx, "tcp4", netip.AddrPortFrom(to.Addr4(), port).String()) })
					if err == nil {
						conn.Close()
					}
					opened <- err
				}()
			}
			for range 2 {
				if err := <-opened; (err == nil) != tt.opens {
					t.Errorf("%v, want the connection to open: %t", err, tt.opens)
				}
			}
		})
	}
}
