package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// T8 and G1: a stranger's datagrams to the relay are met with silence, at ports that are in use, whatever they hold.
//
// What a stranger can tell: at a port that nobody uses, the kernel of the relay's machine answers for it (ICMP port
// unreachable), unless a firewall of that machine forbids it. At a session's port and at the shared port it hears
// nothing. So a scan finds which ports are in use, and nothing else.
func TestRelayIsSilentToScanners(t *testing.T) {
	const shared = 3478
	w := newNetwork(t, daemon.Set("shared_udp_port", shared))
	_, eve, sessions := w.meet()
	used := sessions[0].Relay.UDP
	stranger := w.lab.Public("stranger")
	arrived := stranger.CountArrivals()
	socket := stranger.ListenUDP(0)
	for _, port := range []uint16{used, shared} {
		for size := range 1500 {
			payload := make([]byte, size)
			if size >= 8 {
				copy(payload[4:], "\x21\x12\xa4\x42") // STUN's cookie
			}
			if size%2 == 0 {
				copy(payload, "GET / HTTP/1.1\r\n")
			}
			if _, err := socket.WriteToUDPAddrPort(payload, w.relayAddr(port)); err != nil {
				t.Fatal(err)
			}
		}
	}
	bind(t, eve, sessions[1], 1) // all before has been read
	if got := arrived(); got.Packets > 0 {
		t.Errorf("the stranger got %d packets of %d bytes", got.Packets, got.Bytes)
	}
	// The kernel's own answer at a port that is not in use shows that the count would have seen one.
	if _, err := socket.WriteToUDPAddrPort([]byte("?"), w.relayAddr(used+1)); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "answered with ICMP", func() error {
		if arrived().Packets == 0 {
			return fmt.Errorf("nothing came")
		}
		return nil
	})
}

// T8: a scan of a thousand ports, half of them in use, tells which are in use and nothing more. A relay without a kernel
// plane cannot hide that, because the kernel of its machine answers for it:
//
//	            UDP                                   TCP
//	in use      silence                               a handshake, then silence until the connection is closed
//	not in use  ICMP port unreachable (one a second)  RST
//
// The ports of packet mode, where a kernel plane runs, are silent all of them (lab/kernel).
func TestScanFindsPortsAndNothingElse(t *testing.T) {
	portals := 8
	if *full {
		portals = 33
	}
	w := newNetwork(t)
	w.relay.Host().Sysctl("ipv4/icmp_ratelimit", "0") // so that each port's answer is seen
	used := w.manySessions(portals)
	first, count := used[0], 2*len(used)
	inUse := make(map[uint16]bool)
	for _, port := range used {
		first = min(first, port)
		inUse[port] = true
	}
	stranger := w.lab.Public("stranger")
	for port := first; port < first+uint16(count); port++ {
		conn := stranger.Dial("udp", w.relayAddr(port))
		err := ask(conn)
		for start := time.Now(); !inUse[port] && errors.Is(err, os.ErrDeadlineExceeded) && time.Since(start) < await.Patience; {
			err = ask(conn) // a packet may get lost on a busy machine
		}
		want := error(syscall.ECONNREFUSED)
		if inUse[port] {
			want = os.ErrDeadlineExceeded
		}
		if !errors.Is(err, want) {
			t.Errorf("UDP port %d, in use = %t: %v, want %v", port, inUse[port], err, want)
		}
		conn.Close()

		ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
		conn, err = stranger.DialContext(ctx, "tcp", w.relayAddr(port))
		cancel()
		if refused := errors.Is(err, syscall.ECONNREFUSED); refused == inUse[port] {
			t.Errorf("TCP port %d, in use = %t: %v", port, inUse[port], err)
		}
		if err != nil {
			continue
		}
		await.Limit(t, conn)
		io.WriteString(conn, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 10))
		got, err := io.ReadAll(conn)
		if timeout := errors.Is(err, os.ErrDeadlineExceeded); len(got) > 0 || timeout {
			t.Errorf("TCP port %d: read %q, %v; want the connection closed without a word", port, got, err)
		}
		conn.Close()
	}
	t.Logf("%d of %d ports were in use", len(used), count)
}

// ask sends a datagram and returns how the wait for an answer ended.
func ask(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "anybody there?"); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 100))
	if err == nil {
		err = fmt.Errorf("%d bytes came", n)
	}
	return err
}

// manySessions are sessions between all pairs of so many portals that are played by the test. It returns their ports.
func (w *world) manySessions(portals int) (ports []uint16) {
	w.t.Helper()
	var policy strings.Builder
	name := func(i int) string { return fmt.Sprintf("p%d", i) }
	for i := range portals {
		for j := range i {
			fmt.Fprintf(&policy, "[[forward]]\nname = \"f%d-%d\"\nfrom = \"%s stdio:\"\nto = \"%s tcp://127.0.0.1:9\"\n", i, j, name(i), name(j))
		}
	}
	host := w.lab.Public("portals")
	var credentials []*identity.Credentials
	for i := range portals {
		credentials = append(credentials, w.identity(identity.Portal, name(i)))
	}
	w.Apply(policy.String())
	for i := range portals {
		p := w.join(host, credentials[i])
		granted := p.allGranted()
		for j := range i {
			p.send(wire.OpenSession{Request: uint32(j + 1), Peer: name(j), Grant: granted[name(j)], Transports: wire.TransportSplice | wire.TransportUDP})
			s := p.session()
			if s.Relay.TCP != s.Relay.UDP {
				w.t.Fatalf("the ports differ: %+v", s.Relay)
			}
			ports = append(ports, s.Relay.TCP)
		}
		if err := p.conn.SetDeadline(time.Time{}); err != nil { // it stays for all the others
			w.t.Fatal(err)
		}
	}
	return ports
}

// allGranted waits for all grants of a portal that has just come, and returns them by the peer they lead to.
func (i *impostor) allGranted() map[string]wire.GrantID {
	i.w.t.Helper()
	granted := make(map[string]wire.GrantID)
	for {
		kind, body, err := i.read()
		if err != nil {
			i.w.t.Fatal(err)
		}
		switch kind {
		case wire.TypeGrantsComplete:
			return granted
		case wire.TypePutGrant:
			put, err := wire.ParsePutGrant(body)
			if err != nil {
				i.w.t.Fatal(err)
			}
			g, err := grant.Parse(put.Grant)
			if err != nil {
				i.w.t.Fatal(err)
			}
			granted[g.Exit.Name] = g.ID()
		}
	}
}
