package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// transfer sends random bytes to an echo server and checks what comes back, byte
// for byte.
type transfer struct {
	w    *world
	conn net.Conn
	back atomic.Int64 // bytes that came back
	last atomic.Int64 // when the last did, Unix nanoseconds
	gap  atomic.Int64 // longest pause between two, in nanoseconds
	done chan error   // gets nil when all came back
}

// transfer begins a transfer of size bytes through a forward.
func (w *world) transfer(g grant.Grant, size int) *transfer {
	w.Helper()
	t := &transfer{w: w, conn: w.dial("tcp", g.Listen.HostPort()), done: make(chan error, 1)}
	seed := [32]byte{byte(size)}
	t.last.Store(time.Now().UnixNano())
	w.tasks.Go(func() {
		io.CopyN(t.conn, rand.NewChaCha8(seed), int64(size))
		t.conn.(*net.TCPConn).CloseWrite()
	})
	w.tasks.Go(func() {
		want := rand.NewChaCha8(seed)
		got, expected := make([]byte, 32<<10), make([]byte, 32<<10)
		for {
			n, err := t.conn.Read(got)
			now := time.Now().UnixNano()
			t.gap.Store(max(t.gap.Load(), now-t.last.Swap(now)))
			want.Read(expected[:n])
			if !bytes.Equal(got[:n], expected[:n]) {
				t.done <- errors.New("other bytes came back than were sent")
				return
			}
			back := t.back.Add(int64(n))
			switch {
			case err == io.EOF && back == int64(size):
				t.done <- nil
				return
			case err == io.EOF:
				t.done <- errors.New("a clean end before all bytes had come back")
				return
			case err != nil:
				t.done <- err
				return
			}
		}
	})
	return t
}

// reaches waits until so much has come back.
func (t *transfer) reaches(n int64) {
	t.w.Helper()
	t.w.wait("bytes that come back", func() bool { return t.back.Load() >= n })
}

// ends waits for the end of the transfer and returns the longest pause in it.
func (t *transfer) ends() (time.Duration, error) {
	t.w.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case err := <-t.done:
		return time.Duration(t.gap.Load()), err
	case <-timer.C:
		t.w.Fatalf("the transfer hangs after %d bytes", t.back.Load())
		return 0, nil
	}
}

// wantWell wants all bytes, and no longer pause than that.
func (t *transfer) wantWell(pause time.Duration) {
	t.w.Helper()
	gap, err := t.ends()
	if err != nil {
		t.w.Errorf("after %d bytes: %v", t.back.Load(), err)
	}
	if gap > pause {
		t.w.Errorf("the longest pause was %v, want at most %v", gap, pause)
	}
	t.w.Logf("longest pause %v", gap.Round(time.Millisecond))
}

// size is what one transfer carries in these tests.
const size = 32 << 20

func TestStreamsOutliveTheirRelay(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	next := w.addRelay()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	before := ann.Status().Tunnels[0]
	w.relay.close()
	tr.wantWell(3 * time.Second)
	after := ann.Status().Tunnels[0]
	if after.Tunnel != before.Tunnel || after.Relay != next.name || after.Recoveries > 1 { // 0: too soon to be noticed
		t.Errorf("tunnel %s at %s, and then %s at %s, after %d recoveries", before.Tunnel, before.Relay, after.Tunnel, after.Relay, after.Recoveries)
	}
}

func TestStreamsOutliveARelayThatFallsSilent(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	next := w.addRelay()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	defer w.relay.stall()()
	tr.wantWell(4 * time.Second)
	if s := ann.Status().Tunnels[0]; s.Relay != next.name {
		t.Errorf("the tunnel is at %s", s.Relay)
	}
	w.wait("both on one session", func() bool { return len(ann.Status().Tunnels) == 1 })
}

// The relay has lost the connections and knows the session still: no other is
// asked for.
func TestStreamsComeBackInTheSessionTheyHad(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	before := ann.Status().Tunnels[0]
	w.mu.Lock()
	asked := w.asked
	w.relay.cut(w.sessions[pairOf("ann", "factory")].id)
	w.mu.Unlock()
	tr.wantWell(2 * time.Second)
	if after := ann.Status().Tunnels[0]; after.Session != before.Session || after.Tunnel != before.Tunnel {
		t.Errorf("session %s of tunnel %s, and then %s of %s", before.Session, before.Tunnel, after.Session, after.Tunnel)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked != asked {
		t.Errorf("%d more sessions were asked for", w.asked-asked)
	}
}

func TestSessionThatTheServerEnds(t *testing.T) {
	for reason, passes := range map[wire.Reason]bool{
		wire.ReasonReplaced: true, wire.ReasonLifetime: true, wire.ReasonCarrierLost: true, wire.ReasonShutdown: true,
		wire.ReasonGrantRemoved: false, wire.ReasonRevoked: false, wire.ReasonNotGranted: false,
	} {
		t.Run(reason.String(), func(t *testing.T) {
			w := newWorld(t)
			_, _, g := w.pair()
			tr := w.transfer(g, size)
			tr.reaches(size / 8)
			w.mu.Lock()
			w.endLocked(pairOf("ann", "factory"), "", reason)
			w.mu.Unlock()
			if passes {
				tr.wantWell(2 * time.Second)
			} else if _, err := tr.ends(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v, want a reset", err)
			}
		})
	}
}

// A relay drains: its session moves while it still carries.
func TestStreamsMoveWithTheirSession(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	next := w.addRelay()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	w.mu.Lock()
	old := w.sessions[pairOf("ann", "factory")].id
	w.mu.Unlock()
	w.move("ann", "factory", next)
	tr.wantWell(time.Second)
	w.wait("the old session given back", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range w.done {
			if d.Session == old {
				return d.Reason == wire.ReasonReplaced
			}
		}
		return false
	})
	for _, p := range []*testPortal{ann, factory} {
		if s := p.Status().Tunnels; len(s) != 1 || s[0].Relay != next.name || s[0].Session == old.String() {
			t.Errorf("tunnels %+v", s)
		}
	}
}

// A portal that was killed has forgotten everything: what was open is reset, and
// what comes next works, as soon as it is back.
func TestPortalThatWasKilledComesBack(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	before := ann.Status().Tunnels[0]
	factory.kill()
	w.wait("a tunnel that waits", func() bool { return !ann.Status().Tunnels[0].Waiting.IsZero() })
	if f := ann.waitState("web", Down); !strings.Contains(f.Why, "the tunnel to factory has been waiting for a way back for") {
		t.Errorf("down because %q", f.Why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := ann.pool.Tunnel(ctx, g.Exit.Name, g.ID()); err == nil || !strings.Contains(err.Error(), "has been waiting for a way back for") {
		t.Errorf("a tunnel while it waits: %v", err)
	}
	began := time.Now()
	w.run(factory.config, "factory").waitState("web", Up)
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream of before ended with %v, want a reset", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("reset after %v", took)
	}
	if got, err := ask(w.dial("tcp", g.Listen.HostPort()), "again"); got != "again" {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("usable after %v", took)
	}
	if s := ann.Status().Tunnels; len(s) != 1 || s[0].Tunnel == before.Tunnel {
		t.Errorf("tunnels %+v, before %s", s, before.Tunnel)
	}
}

// With no way back, what waits is reset when the time for it is over, and new
// connections work when there is a relay again.
func TestStreamsAreResetWhenNoWayComesBack(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pairWith(`linger = "1s"`)
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	began := time.Now()
	w.relay.close()
	conn.SetDeadline(began.Add(10 * time.Second))
	if b, err := io.ReadAll(conn); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stream that found no way back ended with %q, %v; want a reset", b, err)
	}
	if took := time.Since(began); took < 900*time.Millisecond || took > 3*time.Second {
		t.Errorf("reset after %v, want 1s", took)
	}
	w.wait("no tunnel", func() bool { return len(ann.Status().Tunnels) == 0 })
	refused, err := net.Dial("tcp", g.Listen.HostPort())
	if err == nil { // else it was reset before we looked
		defer refused.Close()
		refused.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = io.ReadAll(refused)
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a relay: %v, want a reset at once", err)
	}
	w.addRelay()
	w.wait("a connection over the next relay", func() bool {
		conn, err := net.Dial("tcp", g.Listen.HostPort())
		if err != nil { // reset before we looked
			return false
		}
		defer conn.Close()
		got, _ := ask(conn, "again")
		return got == "again"
	})
}

// While every relay is down both portals look for a way at a pace that a server
// bears, and are back soon after a relay is.
func TestSearchGoesOnAtABearablePace(t *testing.T) {
	w := newWorld(t)
	_, _, g := w.pair()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	w.mu.Lock()
	asked := w.asked
	w.mu.Unlock()
	w.relay.close()
	const outage = 6 * time.Second
	timer := time.NewTimer(outage)
	<-timer.C
	w.mu.Lock()
	asked = w.asked - asked
	w.mu.Unlock()
	if most := 2 * (int(outage/time.Second) + 2); asked < 2 || asked > most {
		t.Errorf("two portals asked %d times in %v, want at most %d", asked, outage, most)
	}
	began := time.Now()
	w.addRelay()
	if _, err := tr.ends(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("back after %v", took)
	}
}

// A server that says what it likes costs a bounded number of sessions, and the
// tunnel that carries is not disturbed.
func TestFloodOfSessionsIsBounded(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	tr := w.transfer(g, size)
	tr.reaches(1)
	nowhere := w.addRelay()
	w.mu.Lock()
	stands := w.sessions[pairOf("ann", "factory")]
	for i := range 200 {
		peer := "factory"
		if i%2 == 0 {
			peer = "mallory"
		}
		m := w.sessionLocked(nowhere, "ann", peer, wire.TransportSplice, wire.SessionID{})
		w.conns["ann"].Send(m.told["ann"])
	}
	w.sessions[pairOf("ann", "factory")] = stands
	w.mu.Unlock()
	w.wait("what is too much refused", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		busy := 0
		for _, d := range w.done {
			if d.Reason == wire.ReasonBusy {
				busy++
			}
		}
		return busy >= 200-8
	})
	tr.wantWell(time.Second)
	if list := ann.Status().Tunnels; len(list) > 5 {
		t.Errorf("%d tunnels and sessions", len(list))
	}
}

func TestStoppingPortalLetsConnectionsFinish(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pairWith(`drain = "20s"`)
	for _, p := range []*testPortal{ann, factory} {
		conn := w.dial("tcp", g.Listen.HostPort())
		if got, err := ask(conn, "hello"); got != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		stopped := make(chan struct{})
		w.tasks.Go(func() {
			p.stop()
			close(stopped)
		})
		w.wait("new connections refused", func() bool {
			other, err := net.Dial("tcp", g.Listen.HostPort())
			if err != nil {
				return true
			}
			defer other.Close()
			_, err = ask(other, "new")
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a new connection hangs while the portal stops")
			}
			return err != nil
		})
		if got, err := ask(conn, "still here"); got != "still here" {
			t.Errorf("while %s stops: %q, %v", p.name, got, err)
		}
		select {
		case <-stopped:
			t.Errorf("%s did not wait for the connection", p.name)
		default:
		}
		conn.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
			t.Errorf("while %s stops the connection ended with %q, %v", p.name, b, err)
		}
		<-stopped
		if _, err := os.Lstat(p.config.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of %s is still there: %v", p.name, err)
		}
		if p == ann {
			ann = w.run(ann.config, "ann")
			ann.waitState("web", Up)
		}
	}
}

// The server is away and the relay dies: the tickets for the other relay bring
// the streams back.
func TestStreamsOutliveRelayAndServer(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	next := w.addRelay()
	w.tickets("ann", "factory")
	w.wait("tickets", func() bool {
		return len(ann.client.Tickets().For("factory")) == 2 && len(factory.client.Tickets().For("ann")) == 2
	})
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	w.stopServer()
	w.wait("no server", func() bool { return !ann.Status().Server.Connected && !factory.Status().Server.Connected })
	w.relay.close()
	tr.wantWell(3 * time.Second)
	if s := ann.Status().Tunnels; len(s) != 1 || s[0].Relay != next.name {
		t.Errorf("tunnels %+v", s)
	}
	w.startServer()
	w.wait("a server", func() bool { return ann.Status().Server.Connected && factory.Status().Server.Connected })
	if got, err := ask(w.dial("tcp", g.Listen.HostPort()), "after"); got != "after" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A portal is cut off from the server, which has not noticed and opens sessions that
// it never hears of: it waits with its ticket, and there the other one finds it.
func TestStreamsComeBackToAPortalThatTheServerHasLost(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	w.tickets("ann", "factory")
	w.wait("tickets", func() bool {
		return len(ann.client.Tickets().For("factory")) == 1 && len(factory.client.Tickets().For("ann")) == 1
	})
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	w.mu.Lock()
	w.ghost = "factory"
	w.conns["factory"].Close(wire.ReasonShutdown, "")
	lost := w.sessions[pairOf("ann", "factory")]
	w.mu.Unlock()
	w.wait("no server", func() bool { return !factory.Status().Server.Connected })
	lost.relay.end(lost.id)
	tr.wantWell(3 * time.Second)
}

// Both portals are started anew while the server is away: what they have kept is
// enough to meet.
func TestPortalsMeetWithoutAServer(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	w.tickets("ann", "factory")
	w.wait("tickets", func() bool {
		return len(ann.client.Tickets().For("factory")) == 1 && len(factory.client.Tickets().For("ann")) == 1
	})
	ann.stop()
	factory.stop()
	w.stopServer()
	began := time.Now()
	ann, factory = w.run(ann.config, "ann"), w.run(factory.config, "factory")
	ann.waitState("web", Up)
	factory.waitState("web", Up)
	if got, err := ask(w.dial("tcp", g.Listen.HostPort()), "hello"); got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("they met after %v", took)
	}
	t.Logf("met after %v", time.Since(began).Round(time.Millisecond))
	for _, p := range []*testPortal{ann, factory} {
		w.wait("one place to meet", func() bool {
			list := p.Status().Tunnels
			for _, way := range list[0].Ways {
				if way.Session != list[0].Session {
					return false
				}
			}
			return len(list) == 1
		})
	}
}

// Both lose all carriers at once, know each other's session no more, and ask at
// once: one tunnel goes on, in one session.
func TestBothPortalsRecoverAtOnce(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	tr := w.transfer(g, size)
	tr.reaches(size / 8)
	before := ann.Status().Tunnels[0]
	for i := range 4 {
		w.mu.Lock()
		pair := pairOf("ann", "factory")
		w.sessions[pair].relay.end(w.sessions[pair].id)
		w.sessions[pair].opened = time.Time{}
		w.mu.Unlock()
		tr.reaches(size/8 + int64(i+1)*size/16)
	}
	tr.wantWell(3 * time.Second)
	for _, p := range []*testPortal{ann, factory} {
		w.wait("one session", func() bool {
			s := p.Status().Tunnels
			return len(s) == 1 && s[0].Tunnel == before.Tunnel && len(s[0].Ways) == s[0].Carriers
		})
	}
}
