package udp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
)

// expectation is a row of the table that user space and the kernel planes have
// in common.
type expectation struct {
	row       string
	from      string
	payload   []byte
	ecn       byte
	forwarded bool
}

func expectations(t testing.TB) (list []expectation) {
	t.Helper()
	table, err := os.ReadFile("../../../bpf/testdata/udp.txt")
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.Lines(string(table)) {
		f := strings.Fields(row)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		bad := func(err error) {
			if err != nil {
				t.Fatalf("%q: %v", row, err)
			}
		}
		e := expectation{row: strings.Join(f, " "), from: f[0], forwarded: f[4] == "forwarded"}
		n, err := strconv.Atoi(f[1])
		bad(err)
		for i := range n {
			e.payload = append(e.payload, byte(i%251))
		}
		first, err := hex.DecodeString(strings.TrimPrefix(f[2], "-"))
		bad(err)
		copy(e.payload, first)
		ecn, err := strconv.ParseUint(f[3], 10, 2)
		bad(err)
		e.ecn = byte(ecn)
		list = append(list, e)
	}
	return list
}

// TestUserSpaceDoesWithEveryPacketWhatAllPlanesDo is the user-space side of a
// comparison: the kernel plane is held to the same table.
func TestUserSpaceDoesWithEveryPacketWhatAllPlanesDo(t *testing.T) {
	for _, address := range []netip.Addr{loopback, netip.IPv6Loopback()} {
		t.Run(address.String(), func(t *testing.T) {
			needAddress(t, address)
			g := tunedRig(t, func(*Config) {})
			m := g.session()
			a := m.portal(0, 0, netip.AddrPortFrom(address, g.shared.Port()))
			b := m.portal(1, 0, netip.AddrPortFrom(address, m.at.Port()))
			wantTable(g, a, b, [2]*net.UDPConn{g.socketAt(address), g.socketAt(address)})
		})
	}
}

// wantTable sends every row of the table between two joined portals, and by two
// sockets beside them, and checks what comes of it. It returns how many bytes
// were forwarded.
func wantTable(g *rig, a, b *portal, near [2]*net.UDPConn) (forwarded lease.Traffic) {
	g.t.Helper()
	askECN(g.t, a.UDPConn)
	askECN(g.t, b.UDPConn)
	rows := expectations(g.t)
	if len(rows) < 30 {
		g.t.Fatalf("%d rows in the table", len(rows))
	}
	for _, e := range rows {
		sender, receiver, n := a, b, 0
		if strings.HasSuffix(e.from, "b") {
			sender, receiver, n = b, a, 1
		}
		from := sender.UDPConn
		if strings.HasPrefix(e.from, "near-") {
			from = near[n]
		}
		before := passed(g)
		if _, _, err := from.WriteMsgUDPAddrPort(e.payload, appendECN(nil, sender.relay.Addr(), e.ecn), sender.relay); err != nil {
			g.t.Fatalf("%s: %v", e.row, err)
		}
		if e.forwarded {
			wantPacket(receiver, e)
			forwarded[n] += uint64(len(e.payload))
		} else {
			g.await(e.row, func() bool { return passed(g) == before+1 })
		}
	}
	g.wantNothing(a.UDPConn)
	g.wantNothing(b.UDPConn)
	return forwarded
}

// passed counts the packets that no leg got, for the only reasons that the table
// knows.
func passed(g *rig) uint64 {
	return g.cfg.Drops.Count(drop.Malformed) + g.cfg.Drops.Count(drop.UnknownSource)
}

func wantPacket(p *portal, e expectation) {
	t := p.g.t
	t.Helper()
	buf, oob := make([]byte, 2048), make([]byte, 128)
	p.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, oobn, _, from, err := p.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		t.Fatalf("%s: %v", e.row, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%s: control messages %v, %v", e.row, messages, err)
	}
	if ecn := messages[0].Data[0] & ecnMask; !bytes.Equal(buf[:n], e.payload) || from != p.relay || ecn != e.ecn {
		t.Errorf("%s: %d bytes (equal: %v) from %v with ECN %d, want them from %v", e.row, n, bytes.Equal(buf[:n], e.payload), from, ecn, p.relay)
	}
}

// askECN makes reads of c tell the ECN field.
func askECN(t testing.TB, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVTOS, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// needAddress skips the test where the machine does not have a loopback address.
func needAddress(t testing.TB, a netip.Addr) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Skipf("no address %v here: %v", a, err)
	}
	c.Close()
}
