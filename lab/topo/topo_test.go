package topo_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// Two homes behind NATs, a plain network, two IP versions: who reaches whom.
func TestReachabilityInATopology(t *testing.T) {
	l := topo.New(t)
	server := l.Public("server")
	alice := l.Router("home", topo.PortRestricted).Host("alice")
	office := l.Router("office", topo.Symmetric, topo.LAN("10.0.0.0/24"))
	bob, plc := office.Host("bob"), office.Host("plc", topo.At("10.0.0.5"))
	carol := l.Router("open").Host("carol")
	for _, tt := range []struct {
		name string
		from *topo.Host
		to   *topo.Host
		v6   bool
		want bool
	}{
		{"home to server", alice, server, false, true},
		{"home to server, IPv6", alice, server, true, true},
		{"within an office", bob, plc, false, true},
		{"within an office, IPv6", bob, plc, true, true},
		{"home to plain network", alice, carol, false, true},
		{"server to plain network", server, carol, false, true},
		{"server to plain network, IPv6", server, carol, true, true},
		{"server into a home", server, alice, false, false},
		{"server into a home, IPv6", server, alice, true, false},
		{"home to office", alice, plc, false, false},
		{"home to office, IPv6", alice, plc, true, false},
	} {
		addr := tt.to.Addr4()
		if tt.v6 {
			addr = tt.to.Addr6()
		}
		if got := reaches(t, tt.from, tt.to, addr, tt.want); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
	if want := netip.MustParseAddr("10.0.0.5"); plc.Addr() != want {
		t.Errorf("plc has the address %v, want %v", plc.Addr(), want)
	}
}

func TestOneIPVersionOnly(t *testing.T) {
	l := topo.New(t)
	server := l.Public("server")
	six := l.Router("six", topo.IPv6Only()).Host("a")
	four := l.Public("four", topo.IPv4Only())
	if six.Addr4().IsValid() || !six.Addr().Is6() || four.Addr6().IsValid() {
		t.Fatalf("addresses %v, %v, %v", six.Addr4(), six.Addr(), four.Addr6())
	}
	for _, tt := range []struct {
		from, to *topo.Host
		addr     netip.Addr
		want     bool
	}{
		{six, server, server.Addr6(), true},
		{six, server, server.Addr4(), false},
		{four, server, server.Addr4(), true},
		{four, server, server.Addr6(), false},
	} {
		if got := reaches(t, tt.from, tt.to, tt.addr, tt.want); got != tt.want {
			t.Errorf("%s reaches %v: %t, want %t", tt.from.Name(), tt.addr, got, tt.want)
		}
	}
}

// reaches says whether a datagram arrives at that address of a host, and its answer, as wanted or not.
func reaches(t *testing.T, from, to *topo.Host, addr netip.Addr, want bool) bool {
	t.Helper()
	return passesUDP(t, from.ListenUDP(0), to.ListenUDP(0), addr, want)
}

// inside --- gate --- inet --- narrow
func TestMTUOfAnUplinkIsToldToSenders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		rules []topo.RouterOption
		told  bool
	}{
		{"by routers", nil, true},
		{"by routers, through a NAT", []topo.RouterOption{topo.Symmetric}, true},
		{"by nobody", []topo.RouterOption{topo.BlockICMPErrors}, false},
		{"by nobody, through a NAT", []topo.RouterOption{topo.Symmetric, topo.BlockICMPErrors}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := topo.New(t)
			inside, narrow := l.Router("gate", tt.rules...).Host("inside"), l.Public("narrow", topo.MTU(1280))
			sink := narrow.ListenUDP(0)
			conn := inside.Dial("udp4", netip.AddrPortFrom(narrow.Addr4(), portOf(sink))).(*net.UDPConn)
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var setErr error
			err = raw.Control(func(fd uintptr) {
				setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			})
			if err := errors.Join(err, setErr, conn.SetReadDeadline(time.Now().Add(patience(tt.told)))); err != nil {
				t.Fatal(err)
			}
			const headers = 20 + 8
			if _, err := conn.Write(make([]byte, 1281-headers)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, unix.EMSGSIZE) != tt.told {
				t.Errorf("a packet of 1281 bytes: %v, want the router's word that it is too large: %t", err, tt.told)
			}
			if _, err := conn.Write(make([]byte, 1280-headers)); err != nil {
				t.Fatal(err)
			}
			if text, _ := receive(t, sink); len(text) != 1280-headers {
				t.Errorf("%d bytes arrived, want %d", len(text), 1280-headers)
			}
		})
	}
}

func TestUnpluggedUplinkComesBack(t *testing.T) {
	l := topo.New(t)
	server, host := l.Public("server"), l.Router("home", topo.PortRestricted).Host("host")
	for _, step := range []bool{true, false, true} {
		host.SetUp(step)
		for _, addr := range []netip.Addr{server.Addr4(), server.Addr6()} {
			if got := reaches(t, host, server, addr, step); got != step {
				t.Errorf("plugged in: %t, reaches %v: %t", step, addr, got)
			}
		}
	}
}

func TestEmulatedUplinkOfARouterShapesItsHosts(t *testing.T) {
	l := topo.New(t)
	server := l.Public("server")
	home := l.Router("home", topo.PortRestricted, topo.Uplink(link.Shape{Delay: 25 * time.Millisecond}))
	host := home.Host("host")
	if !reaches(t, host, server, server.Addr(), true) { // and ARP is done
		t.Fatal("the emulated link carries nothing")
	}
	start := time.Now()
	if !reaches(t, host, server, server.Addr(), true) {
		t.Fatal("the emulated link carries nothing more")
	}
	if took := time.Since(start); took < 50*time.Millisecond || took > 500*time.Millisecond {
		t.Errorf("a round trip took %v, want 50ms and little more", took)
	}
	home.Reshape(link.Shape{Loss: 1}, link.Shape{})
	if reaches(t, host, server, server.Addr(), false) {
		t.Error("a dead uplink passes")
	}
}
