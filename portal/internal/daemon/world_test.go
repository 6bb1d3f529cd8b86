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
	"net/netip"
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
	"github.com/netport/netport/proto/leg"
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
	log    *slog.Logger
	tasks  sync.WaitGroup
	relay  *relay

	mu       sync.Mutex // guards the following
	listener net.Listener
	address  string
	conns    map[string]*serverConn
	grants   []grant.Grant
	version  uint64
	parties  map[string]grant.Party
	crossing bool // the next session crosses one that the other portal asks for
	silent   bool // requests are not answered
}

type serverConn = wirecontrol.Conn[wire.FromPortal, wire.ToPortal]

func newWorld(t *testing.T) *world {
	w := &world{
		T: t, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		ca:    identitytest.New(t),
		conns: make(map[string]*serverConn), parties: make(map[string]grant.Party), version: 1,
	}
	var err error
	if _, w.policy, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, w.stamp, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.own = w.ca.Credentials(identity.Server, "server")
	w.relay = newRelay(w)
	t.Cleanup(func() {
		w.stopServer()
		w.relay.close()
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
	welcome := wire.Welcome{Version: wire.ControlVersion, Time: uint64(time.Now().Unix()), Stamp: []ed25519.PublicKey{w.stamp.Public().(ed25519.PublicKey)}}
	conn, err := wirecontrol.WelcomePortal(accepted, welcome, w.log)
	if err != nil {
		raw.Close()
		return
	}
	name := accepted.Peer.ID.Name
	w.mu.Lock()
	w.conns[name] = conn
	w.sendGrantsLocked(name)
	w.sendStatesLocked()
	w.mu.Unlock()
	conn.Run(context.Background(), func(m wire.FromPortal) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if m, ok := m.(wire.OpenSession); ok {
			w.openLocked(name, conn, m)
		}
		return nil
	})
	w.mu.Lock()
	if w.conns[name] == conn {
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
	w.conns[name].Send(wire.GrantsComplete{Version: w.version})
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

func (w *world) openLocked(from string, conn *serverConn, m wire.OpenSession) {
	to := w.conns[m.Peer]
	switch {
	case w.silent:
		return
	case to == nil:
		conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonPeerOffline})
		return
	case w.relay.closed():
		conn.Send(wire.Refused{Request: m.Request, Reason: wire.ReasonNoRelay})
		return
	}
	mine, theirs := w.session(from, m.Peer, m.Transports)
	mine.Request = m.Request
	conn.Send(mine)
	if w.crossing {
		// The other portal was quicker: its session stands, this one ends.
		w.crossing = false
		conn.Send(wire.SessionEnded{Session: mine.ID, Reason: wire.ReasonReplaced})
		theirs, mine = w.session(m.Peer, from, m.Transports)
		conn.Send(mine)
	}
	to.Send(theirs)
}

// session makes the two messages of a session, its opener's first.
func (w *world) session(opener, other string, transports wire.Transports) (forOpener, forOther wire.Session) {
	secrets := [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}
	s := wire.Session{ID: wire.NewSessionID(), Lifetime: 3600, Transports: transports}
	s.Relay = w.relay.expect(s.ID, secrets)
	forOpener, forOther = s, s
	forOpener.Leg, forOpener.Secret, forOpener.Peer = 0, secrets[0], other
	forOther.Leg, forOther.Secret, forOther.Peer = 1, secrets[1], opener
	return forOpener, forOther
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
	g := grant.Sign(p, w.policy).Stamp(w.stamp, time.Now())
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
		w.conns[name].Send(wire.RemoveGrant{Grant: g.ID(), Reason: wire.ReasonGrantRemoved})
		w.conns[name].Send(wire.GrantsComplete{Version: w.version})
	}
}

// testPortal is a portal that runs.
type testPortal struct {
	*Portal
	w    *world
	dir  string
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
	t := &testPortal{Portal: p, w: w, dir: dir, stop: func() {
		cancel()
		running.Wait()
	}}
	w.Cleanup(t.stop)
	return t
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

// relay joins proven legs.
type relay struct {
	w        *world
	listener net.Listener

	mu       sync.Mutex // guards the following
	over     bool
	sessions map[wire.SessionID][2]wire.Secret
	waiting  map[leg.ID]net.Conn
	open     []net.Conn
}

func newRelay(w *world) *relay {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	r := &relay{w: w, listener: l, sessions: make(map[wire.SessionID][2]wire.Secret), waiting: make(map[leg.ID]net.Conn)}
	w.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { r.serve(conn.(*net.TCPConn)) })
		}
	})
	return r
}

// expect takes a session and says where its legs are to be proven.
func (r *relay) expect(id wire.SessionID, secrets [2]wire.Secret) wire.RelayAccess {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[id] = secrets
	at := r.listener.Addr().(*net.TCPAddr).AddrPort()
	return wire.RelayAccess{Name: "relay-1", Addresses: []netip.Addr{at.Addr()}, TCP: at.Port()}
}

func (r *relay) serve(conn *net.TCPConn) {
	b := make([]byte, leg.PrefaceLen)
	r.mu.Lock()
	r.open = append(r.open, conn)
	r.mu.Unlock()
	if _, err := io.ReadFull(conn, b); err != nil {
		conn.Close()
		return
	}
	p, err := leg.ParsePreface(b)
	r.mu.Lock()
	secrets, known := r.sessions[p.ID.Session]
	if err != nil || !known || !p.ProvenBy(secrets[p.ID.Leg]) {
		r.mu.Unlock()
		r.w.Errorf("relay: a leg that is not proven: %v", err)
		conn.Close()
		return
	}
	other := r.waiting[p.ID.Other()]
	if other == nil {
		r.waiting[p.ID] = conn
		r.mu.Unlock()
		return
	}
	delete(r.waiting, p.ID.Other())
	r.mu.Unlock()
	r.w.tasks.Go(func() { pass(other.(*net.TCPConn), conn) })
	pass(conn, other.(*net.TCPConn))
}

func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}

// close is a relay that dies.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for _, c := range r.open {
		c.Close()
	}
}

func (r *relay) closed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over
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
