package packet

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/portal/internal/network/networktest"
)

func TestSocketKeepsWhatQUICIsFastWith(t *testing.T) {
	p := newPair(t, "udp4")
	for i, c := range p.conns {
		if !c.ConnectionState().GSO {
			t.Errorf("end %d sends packets one by one", i)
		}
	}
	for _, s := range []*socket{p.ends[0].line.socket.Load(), replaced(t, p.ends[0].line.conn)} {
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range []struct {
				name         string
				option, want int
			}{
				{"IP_MTU_DISCOVER", unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
				{"IP_RECVTOS", unix.IP_RECVTOS, 1},
				{"IP_PKTINFO", unix.IP_PKTINFO, 0}, // see conn
			} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, o.option); err != nil || got != o.want {
					t.Errorf("%s is %d, %v, want %d", o.name, got, err, o.want)
				}
			}
		})
	}
}

// replaced has the socket of c replaced and returns the new one.
func replaced(t *testing.T, c *conn) *socket {
	t.Helper()
	if err := c.replace(c.socket.Load(), errors.New("test")); err != nil {
		t.Fatal(err)
	}
	return c.socket.Load()
}

// The network goes away under a transfer and comes back, as on a train.
func TestConnectionSurvivesThatNothingCanBeSent(t *testing.T) {
	if !networktest.InNamespace(t) {
		return
	}
	networktest.Run(t, "ip link set lo up")
	p := newPair(t, "udp4")
	p.carry(t, 0, 4<<20, func() {
		networktest.Run(t, "ip addr del 127.0.0.1/8 dev lo")
		defer networktest.Run(t, "ip addr add 127.0.0.1/8 dev lo")
		for deadline := time.After(10 * time.Second); p.ends[0].line.lost.Load() == 0; {
			select {
			case <-deadline:
				t.Fatal("every packet could be sent")
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// A peer may name the broadcast address of this portal's network as its own.
func TestNothingIsSentToAllHostsOfANetwork(t *testing.T) {
	all, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	at := func(host string) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(host), all.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	}
	p, err := newSockets(t).Hold(netip.IPv4Unspecified())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	replaced(t, p.line.conn)
	p.Send([]byte("to all"), at("127.255.255.255"))
	p.Send([]byte("to one"), at("127.0.0.1"))
	b := make([]byte, 16)
	if n, err := all.Read(b); err != nil || string(b[:n]) != "to one" {
		t.Errorf("%q, %v arrived first, want what was sent to one", b[:n], err)
	}
	if lost := p.line.lost.Load(); lost != 1 {
		t.Errorf("%d packets were not sent, want that to all", lost)
	}
}
