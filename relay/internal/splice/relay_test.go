package splice

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/source"
)

// rig is a Relay on loopback with a clock that the test moves.
type rig struct {
	*Relay
	t      testing.TB
	shared string // address of the shared port
	handed string // path of the socket at which connections are taken over
	stop   func()

	taking sync.Mutex // held while a ticket's session is made

	mu  sync.Mutex
	now time.Time
}

func newRig(t testing.TB, cfg *tls.Config, tune ...func(*Relay)) *rig {
	g := &rig{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	g.Relay = New(Config{
		Listen:  []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Leases:  lease.NewTable(lease.Limits{First: 20000, Last: 32767, Sessions: 4000, PerPortal: 4000, SharedTCP: true}),
		Sources: &source.Rules{AllowLoopback: true, Own: func(netip.Addr) bool { return false }},
		Drops:   new(drop.Counters),
		TLS:     cfg,
		Log:     slog.New(slog.DiscardHandler),
		Now:     g.clock,
		Take:    g.take,
	})
	g.cfg.Leases.SetTicketKeys([]wire.Secret{ticketKey})
	for _, f := range tune {
		f(g.Relay)
	}
	l, err := g.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	g.shared = l[0].Addr().String()
	dir, err := os.MkdirTemp("", "np") // a socket's path must be short; t.TempDir's need not be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g.handed = filepath.Join(dir, "shared.sock")
	handed, err := local.ListenPackets(g.handed)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Run(ctx, l, handed) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

func (g *rig) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *rig) pass(d time.Duration) {
	g.mu.Lock()
	g.now = g.now.Add(d)
	g.mu.Unlock()
	g.Sweep()
}

// meeting is a session as its portals know it.
type meeting struct {
	lease.Session
	g       *rig
	secrets [2]wire.Secret
	address string // of its own port
}

func (g *rig) session() *meeting {
	g.t.Helper()
	m := &meeting{g: g, secrets: [2]wire.Secret{wire.NewSecret(), wire.NewSecret()}}
	s, _, err := g.cfg.Leases.Create(g.clock(), wire.CreateSession{
		ID: wire.NewSessionID(), Lifetime: 60, Transports: wire.TransportSplice,
		Legs: [2]wire.Leg{{Portal: "a", Secret: m.secrets[0]}, {Portal: "b", Secret: m.secrets[1]}},
	})
	for err == nil {
		if err = g.Open(s); errors.Is(err, syscall.EADDRINUSE) {
			s, err = g.cfg.Leases.MovePort(s.ID)
			continue
		}
		break
	}
	if err != nil {
		g.t.Fatal(err)
	}
	m.Session = s
	m.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.Port)))
	return m
}

func (m *meeting) end() lease.Traffic {
	m.g.cfg.Leases.End(m.ID)
	return m.g.Close(m.ID)
}

func (m *meeting) preface(n uint8, connection uint16) []byte {
	id := leg.ID{Session: m.ID, Leg: n, Connection: connection}
	return leg.NewPreface(id).AppendTo(nil, m.secrets[n])
}

func (g *rig) dial(address string, first []byte) *net.TCPConn {
	g.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) // a test that hangs says where
	if _, err := c.Write(first); err != nil {
		g.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// join dials both legs of one connection.
func (m *meeting) join(connection uint16) (a, b *net.TCPConn) {
	m.g.t.Helper()
	return m.g.dial(m.address, m.preface(0, connection)), m.g.dial(m.address, m.preface(1, connection))
}

// wantClosed checks that the relay closes c without sending a byte.
func (g *rig) wantClosed(what string, c net.Conn, why drop.Reason, before uint64) {
	g.t.Helper()
	n, err := c.Read(make([]byte, 1))
	var slow net.Error
	if n != 0 || err == nil || errors.As(err, &slow) && slow.Timeout() {
		g.t.Fatalf("%s: read %d bytes, %v; want a quiet close", what, n, err)
	}
	g.await(what+" is counted as "+why.String(), func() bool { return g.cfg.Drops.Count(why) > before })
}

// await waits for what another goroutine is about to do.
func (g *rig) await(what string, ok func() bool) {
	g.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			g.t.Fatalf("not after 10 s: %s", what)
		}
	}
}

func (g *rig) wantRead(what string, c net.Conn, want []byte) {
	g.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		g.t.Fatalf("%s: read %d of %d bytes, %v, equal %v", what, n, len(want), err, bytes.Equal(got, want))
	}
}

func wantReset(t testing.TB, what string, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: ends with %v, want a reset", what, err)
	}
}
