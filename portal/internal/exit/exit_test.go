package exit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/address/addresstest"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
)

var (
	policyKey = ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize))
	stampKey  = ed25519.NewKeyFromSeed(slices.Repeat([]byte{2}, ed25519.SeedSize))
)

// portal is a certificate and what grants name it by.
type portal struct {
	cert  *x509.Certificate
	peer  identity.Peer
	party grant.Party
}

func newPortal(t testing.TB, name string) portal {
	t.Helper()
	cert, _ := identitytest.New(t).Leaf(identity.Portal, name)
	id, err := identity.FromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	hash := identity.HashKey(cert)
	return portal{cert, identity.Peer{ID: id, Key: hash}, grant.Party{Name: name, Key: hash}}
}

// world is an exit portal with its grants.
type world struct {
	testing.TB
	entry, self portal
	set         *grants.Keeper
	config      Config
	exit        *Exit
	cuts        chan cut
	log         *bytes.Buffer
}

func newWorld(t testing.TB, list allow.List, resolver Resolver) *world {
	t.Helper()
	w := &world{TB: t, entry: newPortal(t, "ann"), self: newPortal(t, "factory"), log: new(bytes.Buffer)}
	w.set = grants.NewKeeper(grants.NewSet(w.self.peer, policyKey.Public().(ed25519.PublicKey)), time.Now, func(grants.Change) {})
	w.set.Connected([]ed25519.PublicKey{stampKey.Public().(ed25519.PublicKey)})
	w.cuts = make(chan cut, 16)
	w.config = Config{
		Grants: w.set, List: list, Resolver: resolver, State: t.TempDir(), Now: time.Now,
		Cut: func(ids []wire.GrantID, reason wire.Reason) int { w.cuts <- cut{ids, reason}; return len(ids) },
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	w.exit = New(w.config)
	return w
}

// cut is a call of Config.Cut.
type cut struct {
	ids    []wire.GrantID
	reason wire.Reason
}

// run runs the exit until the test ends, or stop is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.exit.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	w.Cleanup(stop)
	return stop
}

// grant puts a grant from the entry to target and returns it.
func (w *world) grant(target string, change ...func(*grant.Permission)) grant.Grant {
	w.Helper()
	listen := "tcp://127.0.0.1:8080"
	if strings.HasPrefix(target, "udp:") {
		listen = "udp://127.0.0.1:8080"
	}
	p := grant.Permission{
		Version: 1, Forward: "web",
		Entry: w.entry.party, Listen: endpoint.MustParse(listen),
		Exit: w.self.party, Target: endpoint.MustParse(target),
	}
	for _, f := range change {
		f(&p)
	}
	g := grant.Sign(p, policyKey).Stamp(stampKey, time.Now())
	if err := w.set.Put(g.AppendTo(nil)); err != nil {
		w.Fatal(err)
	}
	w.set.Complete(wire.GrantsComplete{Version: 1}.Sign(policyKey))
	return g
}

func (w *world) open(kind wire.OpenKind, g grant.Grant) (net.Conn, wire.Reason) {
	w.Helper()
	conn, err := w.exit.Open(w.Context(), tunnel.From{Peer: w.entry.cert}, wire.Open{Kind: kind, Grant: g.ID()})
	if err == nil {
		w.Cleanup(func() { conn.Close() })
		return conn, wire.ReasonNone
	}
	var end *tunnel.EndError
	if !errors.As(err, &end) || end.Peer {
		w.Fatalf("error of type %T: %v", err, err)
	}
	return nil, end.Reason
}

// recorder is a dialer that dials nothing.
type recorder struct {
	mu     sync.Mutex
	dialed []string
}

func (r *recorder) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dialed = append(r.dialed, network+" "+address)
	here, there := net.Pipe()
	there.Close()
	return here, nil
}

// T14, B88: a name is judged by where it leads, at each dial.
func TestNamesThatLeadSomewhereForbiddenAreNeverDialled(t *testing.T) {
	good := netip.MustParseAddr("192.0.2.10")
	for answer, want := range map[string]wire.Reason{
		"192.0.2.10":                wire.ReasonNone,
		"192.0.2.10 2001:db8::10":   wire.ReasonNone,
		"10.0.0.5":                  wire.ReasonNone,
		"fc00::1":                   wire.ReasonNone,
		"127.0.0.1":                 wire.ReasonForbidden,
		"127.255.255.254":           wire.ReasonForbidden,
		"0.0.0.0":                   wire.ReasonForbidden,
		"0.0.0.1":                   wire.ReasonForbidden,
		"::":                        wire.ReasonForbidden,
		"::1":                       wire.ReasonForbidden,
		"::ffff:127.0.0.1":          wire.ReasonForbidden,
		"::127.0.0.1":               wire.ReasonForbidden,
		"::ffff:0.0.0.0":            wire.ReasonForbidden,
		"64:ff9b::7f00:1":           wire.ReasonForbidden,
		"64:ff9b:1::7f00:1":         wire.ReasonForbidden,
		"2002:7f00:1::":             wire.ReasonForbidden,
		"2001:0:808:808::80ff:fffe": wire.ReasonForbidden,
		"fe80::1":                   wire.ReasonForbidden,
		"fec0::1":                   wire.ReasonForbidden,
		"ff02::1":                   wire.ReasonForbidden,
		"169.254.169.254":           wire.ReasonForbidden,
		"::ffff:169.254.169.254":    wire.ReasonForbidden,
		"fd00:ec2::254":             wire.ReasonForbidden,
		"100.100.100.200":           wire.ReasonForbidden,
		"255.255.255.255":           wire.ReasonForbidden,
		"224.0.0.251":               wire.ReasonForbidden,
		"192.0.2.10 127.0.0.1":      wire.ReasonForbidden,
		"192.0.2.10 ::1":            wire.ReasonForbidden,
		"":                          wire.ReasonTargetUnknown,
	} {
		t.Run(answer, func(t *testing.T) {
			server := &nameServer{answer: func(string, int) (addrs []netip.Addr, _ string) {
				for f := range strings.FieldsSeq(answer) {
					addrs = append(addrs, netip.MustParseAddr(f))
				}
				return addrs, ""
			}}
			w := newWorld(t, allow.List{}, server.start(t))
			dialed := &recorder{}
			w.exit.dialer = dialed
			_, got := w.open(wire.OpenStream, w.grant("tcp://db.test:5432"))
			if got != want {
				t.Errorf("%v, want %v", got, want)
			}
			if (want == wire.ReasonNone) != (len(dialed.dialed) == 1) {
				t.Errorf("dialled %q", dialed.dialed)
			}
		})
	}
	t.Run("alternating", func(t *testing.T) {
		server := &nameServer{answer: func(_ string, nth int) ([]netip.Addr, string) {
			if nth%2 == 0 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.1")}, ""
			}
			return []netip.Addr{good}, ""
		}}
		w := newWorld(t, allow.List{}, server.start(t))
		dialed := &recorder{}
		w.exit.dialer = dialed
		g := w.grant("tcp://db.test:5432")
		count := make(map[wire.Reason]int)
		for range 1000 {
			_, reason := w.open(wire.OpenStream, g)
			count[reason]++
		}
		if count[wire.ReasonNone] != 500 || count[wire.ReasonForbidden] != 500 {
			t.Errorf("outcomes %v, want 500 dialled and 500 forbidden", count)
		}
		for _, d := range dialed.dialed {
			if d != "tcp 192.0.2.10:5432" {
				t.Fatalf("dialled %s", d)
			}
		}
	})
	t.Run("alias of localhost", func(t *testing.T) {
		server := &nameServer{answer: func(name string, _ int) ([]netip.Addr, string) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, "localhost"
		}}
		w := newWorld(t, allow.List{}, server.start(t))
		dialed := &recorder{}
		w.exit.dialer = dialed
		if _, got := w.open(wire.OpenStream, w.grant("tcp://db.test:5432")); got != wire.ReasonForbidden || len(dialed.dialed) > 0 {
			t.Errorf("%v, dialled %q", got, dialed.dialed)
		}
	})
}

// G7, T14: whatever a name leads to of these is not dialled, alone or beside a good answer; nor is what is
// written so that a lax reader takes it for one of them.
func TestForbiddenAddressesAreNotDialled(t *testing.T) {
	var answers atomic.Pointer[[]netip.Addr]
	server := &nameServer{answer: func(string, int) ([]netip.Addr, string) { return *answers.Load(), "" }}
	w := newWorld(t, allow.List{}, server.start(t))
	dialed := &recorder{}
	w.exit.dialer = dialed
	named := w.grant("tcp://db.test:5432")
	for _, s := range addresstest.Forbidden {
		a := netip.MustParseAddr(s)
		if a.Zone() != "" {
			continue // no answer has one
		}
		for _, list := range [][]netip.Addr{{a}, {netip.MustParseAddr("192.0.2.10"), a}} {
			answers.Store(&list)
			if _, got := w.open(wire.OpenStream, named); got != wire.ReasonForbidden {
				t.Errorf("%v: %v", list, got)
			}
		}
	}
	answers.Store(&[]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	for _, s := range addresstest.Words {
		for _, text := range []string{"tcp://" + s + ":5432", "udp://" + s + ":53"} {
			e, err := endpoint.Parse(text)
			if err != nil || e.Host() == "::1" { // one that a grant may name
				continue
			}
			kind := wire.OpenStream
			if e.Datagram() {
				kind = wire.OpenFlow
			}
			g := w.grant(text, func(p *grant.Permission) { p.Forward = "words" })
			if _, got := w.open(kind, g); got != wire.ReasonForbidden {
				t.Errorf("%q: %v", text, got)
			}
		}
	}
	if len(dialed.dialed) > 0 {
		t.Errorf("dialled %q", dialed.dialed)
	}
}

// catcher counts the connections that reach it.
type catcher struct {
	net.Listener
	served sync.WaitGroup
	mu     sync.Mutex
	caught int
}

func catch(t *testing.T) *catcher {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &catcher{Listener: l}
	c.served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.caught++
			c.mu.Unlock()
			conn.Close()
		}
	})
	t.Cleanup(func() { c.stop() })
	return c
}

// stop returns how many connections there were.
func (c *catcher) stop() int {
	c.Close()
	c.served.Wait()
	return c.caught
}

func TestNothingIsDialledWithoutAValidGrant(t *testing.T) {
	c := catch(t)
	target := "tcp://" + c.Addr().String()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	valid := w.grant("tcp://127.0.0.1:1", func(p *grant.Permission) { p.Forward = "other" })
	ended := w.grant(target, func(p *grant.Permission) { p.End = time.Now().Add(-time.Minute) })
	other := newPortal(t, "bo")
	others := w.grant(target, func(p *grant.Permission) { p.Entry = other.party; p.Forward = "bos" })
	rekeyed := w.grant(target, func(p *grant.Permission) { p.Entry.Key = other.party.Key; p.Forward = "old-key" })

	ahead := valid.Permission // of a policy that this portal has not heard of yet
	ahead.Version, ahead.Exit, ahead.Target = valid.Version+1, other.party, endpoint.MustParse(target)
	elsewhere := grant.Sign(ahead, policyKey).Stamp(stampKey, time.Now())

	altered := valid
	altered.Target = endpoint.MustParse(target)
	foreign := grant.Sign(altered.Permission, stampKey).Stamp(stampKey, time.Now())
	unstamped := grant.Sign(altered.Permission, policyKey).Stamp(policyKey, time.Now())
	stale := grant.Sign(altered.Permission, policyKey).Stamp(stampKey, time.Now().Add(-72*time.Hour))
	removed := grant.Sign(altered.Permission, policyKey).Stamp(stampKey, time.Now())

	for name, tt := range map[string]struct {
		open wire.Open
		want wire.Reason
	}{
		"no grant at all":           {wire.Open{}, wire.ReasonNotGranted},
		"a guessed id":              {wire.Open{Grant: wire.GrantID{1, 2, 3}}, wire.ReasonNotGranted},
		"a grant that has ended":    {wire.Open{Grant: ended.ID()}, wire.ReasonGrantExpired},
		"another's grant":           {wire.Open{Grant: others.ID()}, wire.ReasonNotGranted},
		"another's grant, shown":    {wire.Open{Grant: others.ID(), Signed: others.AppendTo(nil)}, wire.ReasonNotGranted},
		"its name with another key": {wire.Open{Grant: rekeyed.ID()}, wire.ReasonNotGranted},
		"an altered target":         {wire.Open{Grant: altered.ID(), Signed: altered.AppendTo(nil)}, wire.ReasonBadSignature},
		"an altered target, old id": {wire.Open{Grant: foreign.ID(), Signed: valid.AppendTo(nil)}, wire.ReasonProtocol},
		"signed by itself":          {wire.Open{Grant: foreign.ID(), Signed: foreign.AppendTo(nil)}, wire.ReasonBadSignature},
		"stamped by the policy key": {wire.Open{Grant: unstamped.ID(), Signed: unstamped.AppendTo(nil)}, wire.ReasonBadSignature},
		"with a stamp that is over": {wire.Open{Grant: stale.ID(), Signed: stale.AppendTo(nil)}, wire.ReasonGrantExpired},
		"a grant of another exit":   {wire.Open{Grant: elsewhere.ID(), Signed: elsewhere.AppendTo(nil)}, wire.ReasonNotGranted},
		"removed by the policy":     {wire.Open{Grant: removed.ID(), Signed: removed.AppendTo(nil)}, wire.ReasonGrantRemoved},
		"garbage for a grant":       {wire.Open{Grant: removed.ID(), Signed: []byte("tcp://" + c.Addr().String())}, wire.ReasonProtocol},
		"datagrams on a stream's":   {wire.Open{Grant: valid.ID(), Kind: wire.OpenFlow}, wire.ReasonNotGranted},
	} {
		kinds := []wire.OpenKind{wire.OpenStream, wire.OpenFlow, wire.OpenProbe}
		if tt.open.Kind != 0 {
			kinds = []wire.OpenKind{tt.open.Kind}
		}
		for _, kind := range kinds {
			w.log.Reset()
			tt.open.Kind = kind
			conn, err := w.exit.Open(t.Context(), tunnel.From{Peer: w.entry.cert}, tt.open)
			var end *tunnel.EndError
			if conn != nil || !errors.As(err, &end) || end.Reason != tt.want {
				t.Errorf("%s, kind %d: %v, want %v", name, kind, err, tt.want)
			}
			if got := w.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "refused to a peer") {
				t.Errorf("%s: log %q, want one line", name, got)
			}
		}
	}
	if got := c.stop(); got != 0 {
		t.Errorf("%d connections were made", got)
	}
}

func TestOwnersListWinsOverTheGrant(t *testing.T) {
	c := catch(t)
	rule, err := allow.Parse("tcp://10.0.0.0/8:*")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, allow.NewList(rule), net.DefaultResolver)
	if _, got := w.open(wire.OpenStream, w.grant("tcp://"+c.Addr().String())); got != wire.ReasonForbidden {
		t.Errorf("loopback that is not in the list: %v", got)
	}
	if _, got := w.open(wire.OpenStream, w.grant("tcp://192.0.2.1:80")); got != wire.ReasonLocalList {
		t.Errorf("an address that is not in the list: %v", got)
	}
	if got := c.stop(); got != 0 {
		t.Errorf("%d connections were made", got)
	}
}

func TestFailedDialsHaveAReason(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	w := newWorld(t, allow.List{}, net.DefaultResolver)
	if _, got := w.open(wire.OpenStream, w.grant("tcp://"+closed.Addr().String())); got != wire.ReasonTargetRefused {
		t.Errorf("no listener: %v", got)
	}
	if _, got := w.open(wire.OpenStream, w.grant("unix://"+filepath.Join(t.TempDir(), "none"))); got != wire.ReasonTargetUnreached {
		t.Errorf("no socket: %v", got)
	}
}

func TestTargetIsToldItsClient(t *testing.T) {
	source := netip.MustParseAddrPort("192.0.2.7:51234")
	for proxy, want := range map[grant.Proxy]string{
		0: "",
		1: "PROXY TCP4 192.0.2.7 127.0.0.1 51234 8080\r\n",
		2: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\xc8\x22\x1f\x90",
	} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, allow.List{}, net.DefaultResolver)
		g := w.grant("unix://"+socket, func(p *grant.Permission) { p.Proxy = proxy })
		conn, err := w.exit.Open(t.Context(), tunnel.From{Peer: w.entry.cert}, wire.Open{Kind: wire.OpenStream, Grant: g.ID(), Source: source})
		if err != nil {
			t.Fatal(err)
		}
		target, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "hello")
		conn.Close()
		if got, err := io.ReadAll(target); err != nil || string(got) != want+"hello" {
			t.Errorf("PROXY protocol %d: target read %q, %v", proxy, got, err)
		}
		target.Close()
		l.Close()
	}
}
