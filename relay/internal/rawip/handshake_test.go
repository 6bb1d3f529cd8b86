package rawip

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/bpf"

	"github.com/netport/netport/relay/internal/answer"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/packet"
)

// Two systems dial the relay at the same time, and neither listens:
//
//	host a 10.99.0.2 --- 10.99.0.1 relay 10.99.1.1 --- 10.99.1.2 host b
//
// The relay's firewall keeps packet ports from its own TCP, as the kernel program
// does, and a capture hands what comes to package answer. What is installed is
// carried here, by Forward, so that all segments that the hosts' offloads have
// joined are cut on the way.
type crossing struct {
	*Sender
	machine *answer.Machine
	drops   drop.Counters

	relay    *space
	hosts    [2]*space
	legs     map[netip.AddrPort]bpf.Leg // the other leg by the remote of one
	flows    int
	slowest  time.Duration // that a packet of a handshake took
	captured *capture

	// lost says, unless it is nil, which packets were lost before: of every
	// kind the first one is.
	lost map[string]bool
}

const firstPort, lastPort = 28672, 28687 // a block for each leg

func newCrossing(t *testing.T) *crossing {
	c := &crossing{relay: newSpace(t), legs: make(map[netip.AddrPort]bpf.Leg)}
	for i := range c.hosts {
		c.hosts[i] = newSpace(t)
		c.relay.connect(fmt.Sprintf("host%d", i), i, c.hosts[i])
	}
	c.relay.run(
		"nft add table inet relay",
		"nft add chain inet relay input { type filter hook input priority 0 ; }",
		fmt.Sprintf("nft add rule inet relay input tcp dport %d-%d drop", firstPort, lastPort),
	)
	var err error
	c.relay.do(func() { c.Sender, err = Open(&c.drops) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Sender.Close() })
	c.captured = c.relay.capture()
	session := lease.Session{ID: wire.SessionID{1}, Packet: [2]uint16{firstPort, firstPort + leg.PacketPorts}}
	c.machine = answer.New(answer.Config{
		Expect: func(_ time.Time, source netip.Addr, port uint16) (lease.Expected, drop.Reason) {
			who := lease.Expected{Session: session}
			if subnet(source) == 1 {
				who.Leg = 1
			}
			if port-who.Packet[who.Leg] >= leg.PacketPorts {
				return lease.Expected{}, drop.UnknownSource
			}
			return who, drop.None
		},
		Edge:   c,
		Drops:  &c.drops,
		Limits: answer.Limits{Pending: 100, Flows: 100, Quarantined: 100},
	})
	return c
}

// subnet returns which host an address is, by the number in it.
func subnet(a netip.Addr) byte {
	if a.Is4() {
		return a.As4()[2]
	}
	return a.As16()[3]
}

// loses reports whether a packet is lost: the first that goes between the relay
// and a host in one direction, with or without SYN.
func (c *crossing) loses(direction string, host netip.AddrPort, flags packet.Flags) bool {
	kind := fmt.Sprint(direction, host.Addr(), flags&packet.SYN)
	first := c.lost != nil && !c.lost[kind]
	if first {
		c.lost[kind] = true
	}
	return first
}

func (c *crossing) Send(b []byte) {
	if t, _ := packet.ParseTCP(b); !c.loses("to", t.Dest, t.Flags) {
		c.Sender.Send(b)
	}
}

// Install makes the flow one that carry sends on.
func (c *crossing) Install(f answer.Flow) error {
	c.flows++
	c.legs[f.Pair.A.Remote], c.legs[f.Pair.B.Remote] = f.Pair.B, f.Pair.A
	return nil
}

// start starts the relay. The function that it returns ends it.
func (c *crossing) start(t *testing.T) (stop func()) {
	ask, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		c.relay.do(func() { c.carry(ask) })
	}()
	stop = sync.OnceFunc(func() {
		close(ask)
		<-stopped
	})
	t.Cleanup(stop)
	return stop
}

func (c *crossing) carry(stop <-chan struct{}) {
	for {
		b := c.captured.next(int(answer.Interval / time.Millisecond))
		now := time.Now()
		c.machine.Tick(now)
		if b != nil {
			c.handle(now, b)
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

func (c *crossing) handle(now time.Time, b []byte) {
	t, why := packet.ParseTCP(b)
	if why != drop.None || t.Dest.Port() < firstPort || t.Dest.Port() > lastPort {
		return
	}
	if to, ok := c.legs[t.Source]; ok && t.Flags&packet.SYN == 0 {
		c.Forward(b, to, 0)
		return
	}
	if c.loses("from", t.Source, t.Flags) {
		return
	}
	c.machine.Handle(now, b)
	c.slowest = max(c.slowest, time.Since(now))
}

// dial connects a host to its own block at the relay.
func (c *crossing) dial(host int, six bool, number uint16) (*net.TCPConn, error) {
	to := fmt.Sprintf("10.99.%d.1", host)
	if six {
		to = fmt.Sprintf("fd99:%d::1", host)
	}
	port := firstPort + uint16(host)*leg.PacketPorts + number
	at := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), port))
	var conn *net.TCPConn
	var err error
	c.hosts[host].do(func() { conn, err = net.DialTCP("tcp", nil, at) })
	return conn, err
}

func TestTwoSystemsConnectAndExchange(t *testing.T) {
	versions(t, func(t *testing.T, six bool) { connectAndExchange(t, newCrossing(t), six) })
}

func TestTwoSystemsConnectWhenTheFirstOfEachPacketIsLost(t *testing.T) {
	versions(t, func(t *testing.T, six bool) {
		c := newCrossing(t)
		c.lost = make(map[string]bool)
		connectAndExchange(t, c, six)
		if len(c.lost) != 6 { // SYN, SYN-ACK and ACK of each host
			t.Errorf("lost %v", c.lost)
		}
	})
}

func connectAndExchange(t *testing.T, c *crossing, six bool) {
	stop := c.start(t)
	var conns [2]*net.TCPConn
	var errs [2]error
	var dialling sync.WaitGroup
	for i := range conns {
		dialling.Go(func() { conns[i], errs[i] = c.dial(i, six, 5) })
	}
	dialling.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("host %d: %v; dropped %v", i, err, c.drops.All())
		}
		defer conns[i].Close()
	}
	exchange(t, conns)
	for i, conn := range conns {
		wantNegotiated(t, i, conn, six)
	}
	closeBoth(t, conns)
	stop()
	if c.flows != 1 {
		t.Errorf("%d flows were installed, want 1", c.flows)
	}
	if n, _ := c.machine.Counts(); n != 0 {
		t.Errorf("%d handshakes are not done", n)
	}
	for _, why := range []drop.Reason{drop.Malformed, drop.Checksum, drop.SendFailed} {
		if n := c.drops.Count(why); n != 0 {
			t.Errorf("%d dropped because of %v", n, why)
		}
	}
	t.Logf("slowest packet of the handshake: %v", c.slowest)
}

// exchange sends a megabyte each way at once and compares every byte.
func exchange(t *testing.T, conns [2]*net.TCPConn) {
	t.Helper()
	const total = 1 << 20
	var all sync.WaitGroup
	for i := range conns {
		conns[i].SetDeadline(time.Now().Add(20 * time.Second))
		all.Go(func() {
			b := make([]byte, total)
			fill(b, i)
			if _, err := conns[i].Write(b); err != nil {
				t.Errorf("host %d writes: %v", i, err)
			}
		})
		all.Go(func() {
			got, want := make([]byte, total), make([]byte, total)
			fill(want, 1-i)
			if n, err := io.ReadFull(conns[i], got); err != nil {
				t.Errorf("host %d has read %d bytes: %v", i, n, err)
			}
			if string(got) != string(want) {
				t.Errorf("host %d has read other bytes than were written", i)
			}
		})
	}
	all.Wait()
}

func fill(b []byte, seed int) { rand.NewChaCha8([32]byte{byte(seed)}).Read(b) }

// wantNegotiated checks what the system says of the connection: all that both
// sides offered, and segments that fill the link.
func wantNegotiated(t *testing.T, host int, conn *net.TCPConn, six bool) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil {
		t.Fatal(err)
	}
	const stamps, sack, scale, ecn = 1, 2, 4, 8 // TCPI_OPT_...
	if got := info.Options & (stamps | sack | scale | ecn); got != stamps|sack|scale {
		t.Errorf("host %d: options %x, want timestamps, SACK and window scale, no ECN", host, got)
	}
	want := uint32(1448)
	if six {
		want = 1428
	}
	if info.Snd_mss != want {
		t.Errorf("host %d sends segments of %d bytes, want %d", host, info.Snd_mss, want)
	}
}

// closeBoth ends both directions, one after the other.
func closeBoth(t *testing.T, conns [2]*net.TCPConn) {
	t.Helper()
	for i := range conns {
		if err := conns[i].CloseWrite(); err != nil {
			t.Error(err)
		}
		if n, err := conns[1-i].Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("host %d reads %d bytes, %v; want the other's end", 1-i, n, err)
		}
	}
}
