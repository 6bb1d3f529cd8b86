package kernel

import (
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
)

// narrow is the MTU of the way to the second leg; the first's is 1500.
const narrow = 1280

// What does not fit the other leg's way is said to the sender as if the relay's address were the destination: TCP sends
// smaller segments, and the owner of a UDP socket hears it.
func TestSendersLearnTheOtherLegsMTU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		mode    string
		version int
		relay   bool // the relay's own interface is the narrow one, else a router behind it
	}{
		{"tc, a router behind the relay", "tc", 4, false},
		{"tc, a router behind the relay, IPv6", "tc", 6, false},
		{"tc, the relay's own interface", "tc", 4, true},
		{"tc, the relay's own interface, IPv6", "tc", 6, true},
		{"XDP, a router behind the relay", "xdp", 4, false},
		{"XDP, the relay's own interface", "xdp", 4, true},
		{"XDP, the relay's own interface, IPv6", "xdp", 6, true},
		{"generic XDP, the relay's own interface", "xdp-generic", 4, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := plan{mode: tt.mode, version: tt.version}
			if !tt.relay {
				p.office = behind(topo.PortRestricted, topo.MTU(narrow))
			}
			w := newWorld(t, p)
			m := w.meet(anyTerms)
			if tt.relay {
				host := w.lab.Public("relay-2")
				second := host.SecondUplink(topo.MTU(narrow))
				switch tt.mode {
				case "xdp":
					second.CarryXDP()
				case "xdp-generic":
					second.PlainFrames()
				}
				w.relay = w.addRelay(host, tt.mode)
				m = w.meet(anyTerms)
				m.at[1] = second.Addr4
				if tt.version == 6 {
					m.at[1] = second.Addr6
				}
			}
			checkStream(t, m.connect(0), 2<<20)

			legs := m.bind()
			wantTooBig(t, legs, narrow)
			headers := 20 + 8
			if tt.version == 6 {
				headers = 40 + 8
			}
			d := datagrams(20)
			d.Size = narrow - headers
			checkDatagrams(t, legs, d)
		})
	}
}

// wantTooBig sends datagrams from the first leg that are larger than the MTU and must not be fragmented, until the host
// refuses them because it has been told, and wants the MTU that it was told.
func wantTooBig(t *testing.T, legs [2]udpLeg, mtu int) {
	t.Helper()
	conn, far := legs[0].PacketConn.(*net.UDPConn), legs[1].PacketConn.(*net.UDPConn)
	setSocket(t, conn, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	setSocket(t, conn, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	to := legs[0].Addr.(*net.UDPAddr).AddrPort()
	headers := 20 + 8
	if to.Addr().Is6() {
		headers = 40 + 8
	}
	write := func(size int) error {
		_, err := conn.WriteToUDPAddrPort(make([]byte, size-headers), to)
		return err
	}
	await.Until(t, "told that its datagrams are too large", func() error {
		switch err := write(1500); {
		case err == nil:
			return errors.New("its host takes them")
		case errors.Is(err, unix.EMSGSIZE):
			return nil
		default:
			return err
		}
	})
	if err := write(mtu + 1); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a packet of %d bytes: %v, want it refused", mtu+1, err)
	}
	if err := write(mtu); err != nil {
		t.Errorf("a packet of %d bytes: %v", mtu, err)
	}
	await.Limit(t, far)
	if n, err := far.Read(make([]byte, 2000)); err != nil || n != mtu-headers {
		t.Errorf("%d bytes arrived, %v; want %d", n, err, mtu-headers)
	}
}

func setSocket(t *testing.T, conn *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, option, value) })
	if err := errors.Join(err, set); err != nil {
		t.Fatal(err)
	}
}

// Where nobody says that packets are too large, TCP finds out by itself (RFC 4821), if its host has that on.
func TestStreamSurvivesAnMTUThatNobodyTells(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"tc", "xdp"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{
				mode:   mode,
				home:   behind(topo.PortRestricted, topo.BlockICMPErrors),
				office: behind(topo.PortRestricted, topo.MTU(narrow), topo.BlockICMPErrors),
			})
			for _, s := range w.sides {
				s.Sysctl("ipv4/tcp_mtu_probing", "1")
			}
			checkStream(t, w.meet(anyTerms).connect(0), 1<<20)
			if learnt := w.sides[0].Run("ip", "route", "get", w.relayAt(0).Addr().String()); strings.Contains(learnt, "mtu") {
				t.Errorf("somebody has told, so that the test shows nothing: %s", learnt)
			}
		})
	}
}
