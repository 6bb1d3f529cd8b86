package path

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

func listenUDP(t testing.TB, host string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 0)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// udpRelay is a relay that holds one session: it binds its two legs with a
// real Gate, and passes on what comes from one to the other.
type udpRelay struct {
	t       testing.TB
	conns   []*net.UDPConn // one for each of its addresses
	id      wire.SessionID
	secrets [2]wire.Secret
	gate    *leg.Gate
	serving sync.WaitGroup

	mu    sync.Mutex // guards the following
	bound [2]leg.Binding
	via   [2]*net.UDPConn
	held  [2][][]byte // of the other leg, until this one is bound
	mute  bool        // binds are not answered when they succeed
	binds [2]int      // how often
}

func newUDPRelay(t testing.TB, hosts ...string) *udpRelay {
	t.Helper()
	r := &udpRelay{t: t, id: wire.NewSessionID(), secrets: [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}, gate: leg.NewGate()}
	for _, h := range hosts {
		c := listenUDP(t, h)
		r.conns = append(r.conns, c)
		r.serving.Go(func() { r.serve(c) })
	}
	t.Cleanup(func() {
		for _, c := range r.conns {
			c.Close()
		}
		r.serving.Wait()
	})
	return r
}

func (r *udpRelay) serve(c *net.UDPConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.take(c, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b[:n])
		}
	}
}

func (r *udpRelay) take(c *net.UDPConn, from netip.AddrPort, packet []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if leg.IsSTUN(packet) {
		r.bind(c, from, packet)
		return
	}
	for i := range r.bound {
		if r.bound[i].Source != from || r.via[i] != c {
			continue
		}
		if to := 1 - i; r.via[to] != nil {
			r.via[to].WriteToUDPAddrPort(packet, r.bound[to].Source)
		} else if len(r.held[to]) < 8 {
			r.held[to] = append(r.held[to], slices.Clone(packet))
		}
		return
	}
}

func (r *udpRelay) bind(c *net.UDPConn, from netip.AddrPort, packet []byte) {
	q, err := leg.ParseRequest(packet)
	if err != nil || q.ID.Session != r.id || q.ID.Connection != 0 {
		r.t.Errorf("bind request %x: %v", packet, err)
		return
	}
	i := q.ID.Leg
	verdict, answer := r.gate.Judge(time.Now(), q, from, r.secrets[i], r.bound[i])
	if verdict == leg.Bind {
		r.bound[i], r.via[i] = leg.Binding{Counter: q.Counter, Source: from}, c
		r.binds[i]++
	}
	if answer != nil && !(r.mute && (verdict == leg.Bind || verdict == leg.Repeat)) {
		c.WriteToUDPAddrPort(answer, from)
	}
	if verdict == leg.Bind {
		for _, p := range r.held[i] {
			c.WriteToUDPAddrPort(p, from)
		}
		r.held[i] = nil
	}
}

// wantBinds waits until a leg was bound so often.
func (r *udpRelay) wantBinds(i, n int) {
	r.t.Helper()
	eventually(r.t, "leg bound", func() bool { return r.bindsOf(i) >= n })
}

func (r *udpRelay) bindsOf(i int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.binds[i]
}

// silence has the relay bind legs without a word.
func (r *udpRelay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = true
}

// access says where a portal finds the relay: at these places.
func accessAt(places ...netip.AddrPort) wire.RelayAccess {
	a := wire.RelayAccess{Name: "relay-1", UDP: places[0].Port()}
	for _, p := range places {
		a.Addresses = append(a.Addresses, p.Addr())
	}
	return a
}

// leg returns a portal's way into the session; it finds the relay at access.
func (r *udpRelay) leg(f *Finder, i uint8, access wire.RelayAccess) *Leg {
	r.t.Helper()
	l, err := f.Leg(wire.Session{
		ID: r.id, Leg: i, Secret: r.secrets[i], Peer: [2]string{"factory", "ann"}[i], Relay: access, Transports: Transports,
	}, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	return l
}

// nat stands between a portal and the relay: to the portal it is the relay, to
// the relay it is the portal.
type nat struct {
	inside  *net.UDPConn
	relay   netip.AddrPort
	serving sync.WaitGroup

	mu      sync.Mutex // guards the following
	outside *net.UDPConn
	portal  netip.AddrPort
	forgot  bool // nothing passes inwards before something has passed outwards
	lose    int  // every so many packets one is lost; 0: none
	count   int
}

func newNAT(t testing.TB, relay netip.AddrPort) *nat {
	n := &nat{inside: listenUDP(t, "127.0.0.1"), outside: listenUDP(t, "127.0.0.1"), relay: relay}
	n.serving.Go(n.out)
	n.serving.Go(func() { n.in(n.outside) })
	t.Cleanup(func() {
		n.inside.Close()
		n.mu.Lock()
		n.outside.Close()
		n.mu.Unlock()
		n.serving.Wait()
	})
	return n
}

// passes reports whether the next packet is not lost.
func (n *nat) passes() bool {
	n.count++
	return n.lose == 0 || n.count%n.lose != 0
}

func (n *nat) out() {
	b := make([]byte, 2048)
	for {
		k, from, err := n.inside.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		n.mu.Lock()
		n.portal, n.forgot = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), false
		if err == nil && n.passes() {
			n.outside.WriteToUDPAddrPort(b[:k], n.relay)
		}
		n.mu.Unlock()
	}
}

func (n *nat) in(outside *net.UDPConn) {
	b := make([]byte, 2048)
	for {
		k, _, err := outside.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		n.mu.Lock()
		if err == nil && !n.forgot && n.passes() {
			n.inside.WriteToUDPAddrPort(b[:k], n.portal)
		}
		n.mu.Unlock()
	}
}

// loses has every so many packets lost.
func (n *nat) loses(every int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = every
}

// rebind gives the portal another port, as a NAT does that was started anew.
func (n *nat) rebind(t testing.TB) { n.renumber(t, "127.0.0.1") }

// renumber gives the portal another port of an address.
func (n *nat) renumber(t testing.TB, address string) {
	c := listenUDP(t, address)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outside.Close()
	n.outside = c
	n.serving.Go(func() { n.in(c) })
}

// forget has the NAT forget the portal; it will give it the same port again.
func (n *nat) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgot = true
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(20 * time.Second); !done(); {
		select {
		case <-timeout:
			t.Fatalf("not in 20 s: %s", what)
		case <-tick.C:
		}
	}
}
