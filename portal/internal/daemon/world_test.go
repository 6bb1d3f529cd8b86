package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/config"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// TestMain finds what a portal that has stopped leaves running.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		code = leaks()
	}
	os.Exit(code)
}

// leaks waits a moment for goroutines of this module to end and prints those
// that do not.
func leaks() int {
	deadline := time.Now().Add(2 * time.Second)
	for {
		b := make([]byte, 1<<20)
		b = b[:runtime.Stack(b, true)]
		var left []string
		for g := range strings.SplitSeq(string(b), "\n\n") {
			if strings.Contains(g, "netport/portal") && !strings.Contains(g, "TestMain") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			fmt.Printf("FAIL: %d goroutines are left over:\n%s\n", len(left), strings.Join(left, "\n\n"))
			return 1
		}
		runtime.Gosched()
	}
}

// world is a server and a relay on loopback that do just what a portal needs
// of them, and the portals of a test.
//
//	portal --- control ---> server (this test)
//	portal --- leg -------> relay (this test) <------- leg --- portal
type world struct {
	*testing.T
	ca     *identitytest.Authority
	policy ed25519.PrivateKey
	stamp  ed25519.PrivateKey
	own    *identity.Credentials
	now    func() time.Time // the server's clock
	log    *slog.Logger
	tasks  sync.WaitGroup

	mu       sync.Mutex // guards the following
	relay    *relay     // takes the next session
	relays   []*relay
	sessions map[[2]string]*standing // of a pair of portals, by their names in order
	listener net.Listener
	address  string
	conns    map[string]*serverConn
	grants   []grant.Grant
	version  uint64
	parties  map[string]grant.Party
	ticketed [][2]string // pairs that have tickets
	crossing bool        // the next session crosses one that the other portal asks for
	silent   bool        // requests are not answered
	barred   string      // the portal that was killed: nothing of it is heard
	ghost    string      // the portal that is cut off, and thought to be connected
	asked    int         // requests so far
	done     []wire.SessionDone
}

type serverConn = wirecontrol.Conn[wire.FromPortal, wire.ToPortal]

func newWorld(t *testing.T) *world { return newWorldAt(t, time.Now) }

// newWorldAt makes a world whose server goes by the clock now.
func newWorldAt(t *testing.T, now func() time.Time) *world {
	w := &world{
		T: t, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		ca: identitytest.At(t, now), now: now,
		sessions: make(map[[2]string]*standing),
		conns:    make(map[string]*serverConn), parties: make(map[string]grant.Party), version: 1,
	}
	var err error
	if _, w.policy, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, w.stamp, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.own = w.ca.Credentials(identity.Server, "server")
	w.relay = w.addRelay()
	t.Cleanup(func() {
		w.stopServer()
		for _, r := range w.relays {
			r.close()
		}
		w.tasks.Wait()
	})
	w.startServer()
	return w
}

// startServer listens, at the address of the last time if there was one.
func (w *world) startServer() {
	w.Helper()
	address := w.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	w.listener, w.address = l, l.Addr().String()
	w.mu.Unlock()
	w.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { w.serve(conn) })
		}
	})
}

// stopServer is a server that dies: no goodbye.
func (w *world) stopServer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listener.Close()
	for _, c := range w.conns {
		c.Close(wire.ReasonShutdown, "")
	}
}

func (w *world) serve(raw net.Conn) {
	accepted, err := wirecontrol.Accept(context.Background(), raw, w.own.ServerTLS(identity.ProtocolControl, identity.Expect(identity.Portal, "")))
	if err != nil {
		raw.Close()
		return
	}
	welcome := wire.Welcome{Version: wire.ControlVersion, Time: uint64(w.now().Unix()), Stamp: []ed25519.PublicKey{w.stamp.Public().(ed25519.PublicKey)}}
	conn := wirecontrol.WelcomePortal(accepted, welcome, w.log)
	name := accepted.Peer.ID.Name
	w.mu.Lock()
	if w.barred == name || w.ghost == name {
		w.mu.Unlock()
		conn.Close(wire.ReasonShutdown, "")
		return
	}
	w.conns[name] = conn
	w.sendGrantsLocked(name)
	w.sendTicketsLocked(name)
	w.sendStatesLocked()
	w.mu.Unlock()
	conn.Run(context.Background(), func(m wire.FromPortal) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.conns[name] != conn {
			return nil
		}
		switch m := m.(type) {
		case wire.OpenSession:
			w.openLocked(name, conn, m)
		case wire.SessionDone:
			w.doneLocked(name, m)
		}
		return nil
	})
	w.mu.Lock()
	if w.conns[name] == conn && w.ghost != name {
		delete(w.conns, name)
	}
	w.sendStatesLocked()
	w.mu.Unlock()
}

func (w *world) sendGrantsLocked(name string) {
	for _, g := range w.grants {
		if g.Entry.Name == name || g.Exit.Name == name {
			w.conns[name].Send(wire.PutGrant{Grant: g.AppendTo(nil)})
		}
	}
	w.conns[name].Send(wire.GrantsComplete{Version: w.version}.Sign(w.policy))
}

// tickets gives two portals tickets for every relay there is.
func (w *world) tickets(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticketed = append(w.ticketed, pairOf(a, b))
	w.sendTicketsLocked(a)
	w.sendTicketsLocked(b)
}

func (w *world) sendTicketsLocked(name string) {
	ends := w.now().Add(2 * time.Hour)
	for _, pair := range w.ticketed {
		own := slices.Index(pair[:], name)
		if own < 0 || w.conns[name] == nil {
			continue
		}
		for _, r := range w.relays {
			access := r.access()
			access.TCP, access.SharedTCP = 0, access.TCP
			id := ticket.Session(r.key, pair[0], pair[1], ends.Truncate(time.Hour))
			w.conns[name].Send(wire.Ticket{
				Session: id, Leg: uint8(own), Secret: ticket.Secret(r.key, id, uint8(own)), Peer: pair[1-own],
				Relay: access, Transports: wire.TransportSplice,
			})
		}
	}
}

// tellRelay tells all portals whether there is a relay.
func (w *world) tellRelay(ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Send(wire.RelayState{Ready: ready})
	}
}

func (w *world) sendStatesLocked() {
	for to, c := range w.conns {
		c.Send(wire.RelayState{Ready: true})
		for name := range w.parties {
			if name != to {
				c.Send(wire.PeerState{Name: name, Online: w.conns[name] != nil})
			}
		}
	}
}

// standing is a session that stands.
type standing struct {
	id     wire.SessionID
	relay  *relay
	opened time.Time
	told   map[string]wire.Session // to each portal
}

func pairOf(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// openLocked does as the server does: a pair has one session. A request within
// 5 s of its opening is answered with it, unless its relay is lost; a later one
// ends it.
func (w *world) openLocked(from string, conn *serverConn, m wire.OpenSession) {
	w.asked++
	to, pair := w.conns[m.Peer], pairOf(from, m.Peer)
	old := w.sessions[pair]
	if old != nil && !w.crossing && old.relay.name != m.Lost && time.Since(old.opened) < 5*time.Second {
		s := old.told[from]
		s.Request = m.Request
		conn.Send(s)
		return
	}
	relay := w.relay
	for _, r := range w.relays {
		if relay.closed() || relay.name == m.Lost && !r.closed() {
			relay = r
		}
	}
	switch {
	case w.silent:
		return
	case to == nil:
		conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonPeerOffline})
		return
	case relay.closed():
		conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonNoRelay})
		return
	}
	w.endLocked(pair, "", wire.ReasonReplaced)
	next := w.sessionLocked(relay, from, m.Peer, m.Transports, wire.SessionID{})
	mine := next.told[from]
	mine.Request = m.Request
	conn.Send(mine)
	if w.crossing {
		// The other portal was quicker: its session stands, this one ends.
		w.crossing = false
		conn.Send(wire.SessionEnded{Session: next.id, Reason: wire.ReasonReplaced})
		next = w.sessionLocked(relay, m.Peer, from, m.Transports, wire.SessionID{})
		conn.Send(next.told[from])
	}
	to.Send(next.told[m.Peer])
}

// sessionLocked makes the session of a pair.
func (w *world) sessionLocked(at *relay, opener, other string, transports wire.Transports, replaces wire.SessionID) *standing {
	secrets := [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}
	s := wire.Session{ID: wire.NewSessionID(), Lifetime: 3600, Transports: transports, Replaces: replaces}
	s.Relay = at.expect(s.ID, secrets)
	one, two := s, s
	one.Leg, one.Secret, one.Peer = 0, secrets[0], other
	two.Leg, two.Secret, two.Peer = 1, secrets[1], opener
	m := &standing{id: s.ID, relay: at, opened: time.Now(), told: map[string]wire.Session{opener: one, other: two}}
	w.sessions[pairOf(opener, other)] = m
	return m
}

// endLocked ends the session of a pair and tells both portals but one.
func (w *world) endLocked(pair [2]string, but string, reason wire.Reason) {
	m := w.sessions[pair]
	if m == nil {
		return
	}
	delete(w.sessions, pair)
	m.relay.end(m.id)
	for _, name := range pair {
		if c := w.conns[name]; c != nil && name != but {
			c.Send(wire.SessionEnded{Session: m.id, Reason: reason})
		}
	}
}

// doneLocked takes a session back.
func (w *world) doneLocked(from string, m wire.SessionDone) {
	w.done = append(w.done, m)
	for pair, s := range w.sessions {
		if s.id == m.Session {
			w.endLocked(pair, from, m.Reason)
			return
		}
	}
	for _, r := range w.relays { // one that another has replaced
		r.end(m.Session)
	}
}

// move opens a session at another relay in the place of that of a pair, as a
// server does for a relay that drains.
func (w *world) move(a, b string, to *relay) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.sessions[pairOf(a, b)]
	next := w.sessionLocked(to, a, b, wire.TransportSplice, old.id)
	for _, name := range []string{a, b} {
		w.conns[name].Send(next.told[name])
	}
}

// permission returns what joins two portals of the world.
func (w *world) permission(forward, entry, listen, exit, target string) grant.Permission {
	return grant.Permission{
		Version: w.version, Forward: forward,
		Entry: w.parties[entry], Listen: endpoint.MustParse(listen),
		Exit: w.parties[exit], Target: endpoint.MustParse(target),
	}
}

// grant signs a permission and sends it to both.
func (w *world) grant(p grant.Permission) grant.Grant {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := grant.Sign(p, w.policy).Stamp(w.stamp, w.now())
	w.grants = append(w.grants, g)
	for _, name := range []string{p.Entry.Name, p.Exit.Name} {
		if w.conns[name] != nil {
			w.sendGrantsLocked(name)
		}
	}
	return g
}

// revoke takes a grant back, from the exit first.
func (w *world) revoke(g grant.Grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version++
	w.grants = slices.DeleteFunc(w.grants, func(o grant.Grant) bool { return o.ID() == g.ID() })
	for _, name := range []string{g.Exit.Name, g.Entry.Name} {
		if c := w.conns[name]; c != nil { // else it hears of it when it is back
			c.Send(wire.RemoveGrant{Grant: g.ID(), Reason: wire.ReasonGrantRemoved})
			c.Send(wire.GrantsComplete{Version: w.version}.Sign(w.policy))
		}
	}
}

// testPortal is a portal that runs.
type testPortal struct {
	*Portal
	w    *world
	name string
	stop func() // ends it and waits
}

// portal starts a portal. more is added to its configuration.
func (w *world) portal(name, more string) *testPortal {
	w.Helper()
	dir := w.TempDir()
	cert, key := w.ca.Leaf(identity.Portal, name)
	w.mu.Lock()
	w.parties[name] = grant.Party{Name: name, Key: identity.HashKey(cert)}
	w.mu.Unlock()
	if err := identity.SaveKey(filepath.Join(dir, "key.pem"), key); err != nil {
		w.Fatal(err)
	}
	if !strings.Contains(more, "drain") { // else a test waits for the connections that it has open
		more = "drain = \"50ms\"\n" + more
	}
	if !strings.Contains(more, "direct") { // the stories here are about relays
		more = "direct = false\n" + more
	}
	text := fmt.Sprintf("servers = [%q]\npolicy_key = %q\n%s", w.address, grant.FormatKey(w.policy.Public().(ed25519.PublicKey)), more)
	for file, b := range map[string][]byte{
		"cert.pem": identity.EncodeCertificates(cert), "ca.pem": identity.EncodeCertificates(w.ca.Certificate), "config.toml": []byte(text),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	c, err := config.Load(filepath.Join(dir, "config.toml"))
	if err != nil {
		w.Fatal(err)
	}
	// The socket's path has little room, and the test's folder a long name.
	c.Socket = filepath.Join(w.short(), name)
	return w.run(c, name)
}

// run runs a portal, which may have run before.
func (w *world) run(c config.Config, name string) *testPortal {
	w.Helper()
	p, err := New(c, w.log.With("portal", name))
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	t := &testPortal{Portal: p, w: w, name: name, stop: func() {
		cancel()
		running.Wait()
	}}
	w.Cleanup(t.stop)
	return t
}

// kill ends a portal as SIGKILL does: nobody hears a last word of it.
func (p *testPortal) kill() {
	w := p.w
	w.mu.Lock()
	w.barred = p.name
	if c := w.conns[p.name]; c != nil {
		delete(w.conns, p.name)
		c.Close(wire.ReasonShutdown, "")
	}
	for pair, m := range w.sessions {
		if pair[0] == p.name || pair[1] == p.name {
			m.relay.end(m.id)
			delete(w.sessions, pair)
		}
	}
	w.mu.Unlock()
	p.config.Drain = 0
	p.stop()
	w.mu.Lock()
	w.barred = ""
	w.mu.Unlock()
}

// short makes a folder with a short name.
func (w *world) short() string {
	w.Helper()
	dir, err := os.MkdirTemp("", "np")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// wait waits until cond holds.
func (w *world) wait(what string, cond func() bool) {
	w.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			w.Fatalf("waited in vain: %s", what)
		}
	}
}

// waitState waits until a forward has a state, and returns it.
func (p *testPortal) waitState(forward, state string) (f Forward) {
	p.w.Helper()
	p.w.wait(fmt.Sprintf("forward %s %s", forward, state), func() bool {
		for _, f = range p.Status().Forwards {
			if f.Name == forward && f.State == state {
				return true
			}
		}
		return false
	})
	return f
}

// freePort returns an address on loopback at which nobody listens.
func (w *world) freePort(network string) string {
	w.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			w.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// echo serves connections by sending back what they send.
func (w *world) echo(network, address string) net.Listener {
	w.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		w.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			serving.Go(func() {
				io.Copy(conn, conn)
				conn.Close()
			})
		}
	})
	w.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l
}
