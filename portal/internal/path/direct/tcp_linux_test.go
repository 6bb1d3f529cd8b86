package direct

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/wire"
)

// segment is the longest that a connection sends, or that what listens allows.
func segment(t *testing.T, socket syscall.Conn) (bytes int) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { bytes, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	return bytes
}

// Where one portal has found that full segments get lost, connections have small ones in both directions, whoever dials
// them; also those that come in where it listens already.
func TestStuckConnectionIsFollowedByOneOfSmallSegments(t *testing.T) {
	for _, stuck := range []int{-1, 0, 1} {
		both := newPairOf(t, func(int, []wire.Candidate) {})
		doors := func(p *portal) (list []wire.Candidate) {
			for _, c := range p.State().Own {
				if c.Transport == wire.CandidateTCP && c.Addr.Addr().IsLoopback() {
					list = append(list, c)
				}
			}
			return list
		}
		eventually(t, "both listen", func() bool { return len(doors(both[0])) > 0 && len(doors(both[1])) > 0 })
		if stuck >= 0 {
			(&tcpWay{path: both[stuck].Path}).Stuck()
			d := both[stuck].finder.doors[false]
			later, err := openDoor(netip.IPv4Unspecified(), 0, both[stuck].paths.Segments, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range []*net.TCPListener{d.listener, later.listener} {
				if n := segment(t, l); n > 1140 {
					t.Errorf("what comes in has segments of %d bytes", n)
				}
			}
			later.close()
		}
		for i, p := range both {
			both[1-i].Peer(doors(p))
		}
		conns := both.connectTCP(t)
		for i, c := range conns {
			if n := segment(t, c.(*net.TCPConn)); n <= 1140 != (stuck >= 0) {
				t.Errorf("side %d, found by %d: segments of %d bytes", i, stuck, n)
			}
		}
	}
}
