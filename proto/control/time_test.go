package control

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// The tests here run on a clock that jumps to the next thing to happen, over
// pipes that hold no byte: who does not read is not written to.

func TestSilentPeerIsAskedAndThenGivenUp(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		_, end, s := portalAgainst(t, r, a, b, nothing[wire.ToPortal](t))
		start := time.Now()
		for i := range 3 { // answered
			body := s.want(wire.TypePing)
			if got, want := time.Since(start), time.Duration(i+1)*KeepAlive; got != want {
				t.Errorf("ping %d after %v, want %v", i, got, want)
			}
			m, _ := wire.ParsePing(body)
			s.send(wire.Pong(m))
		}
		s.want(wire.TypePing) // not answered, but something else comes
		time.Sleep(PongTimeout - time.Second)
		s.write(frame(999, []byte{1}))
		heard := time.Now()
		s.want(wire.TypePing)
		asked := time.Now()
		if got := asked.Sub(heard); got != KeepAlive {
			t.Errorf("next ping %v after the last message, want %v", got, KeepAlive)
		}
		if err := end.wait(); err == nil || !strings.Contains(err.Error(), "no answer from spiffe://example.org/server/s") {
			t.Errorf("Run returned %v", err)
		}
		if got := time.Since(asked); got != PongTimeout {
			t.Errorf("given up %v after the ping, want %v", got, PongTimeout)
		}
	})
}

func TestTwoIdleSidesStayConnected(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		pings := 0
		go func() {
			for {
				typ, body := s.read()
				if body == nil {
					return
				}
				if typ == wire.TypePing {
					pings++
					m, _ := wire.ParsePing(body)
					s.send(wire.Pong(m))
				}
			}
		}()
		select {
		case <-end.done:
			t.Errorf("ended: %v", end.err)
		case <-time.After(24*time.Hour + time.Second):
		}
		conn.Close(wire.ReasonShutdown, "")
		end.wait()
		synctest.Wait()
		if want := int(24 * time.Hour / portalQuiet); pings != want {
			t.Errorf("%d pings in a day, want %d", pings, want)
		}
	})
}

func TestProbeNoticesADeadPeerSoon(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		portal, end, s := portalAgainst(t, r, a, b, nothing[wire.ToPortal](t))
		for range 3 { // answered
			portal.Probe()
			m, _ := wire.ParsePing(s.want(wire.TypePing))
			s.send(wire.Pong(m))
			time.Sleep(time.Minute)
		}
		portal.Probe()
		s.want(wire.TypePing)
		asked := time.Now()
		// Who goes on asking does not put the end off.
		for range 4 {
			time.Sleep(time.Second)
			portal.Probe()
		}
		if err := end.wait(); err == nil {
			t.Error("Run returned nil")
		}
		if got := time.Since(asked); got != ProbeTimeout {
			t.Errorf("given up %v after the probe, want %v", got, ProbeTimeout)
		}
	})
}

func TestProbeShortensTheWaitForAPong(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		portal, end, s := portalAgainst(t, r, a, b, nothing[wire.ToPortal](t))
		s.want(wire.TypePing)
		asked := time.Now()
		time.Sleep(time.Second)
		portal.Probe()
		end.wait()
		if got, want := time.Since(asked), time.Second+ProbeTimeout; got != want {
			t.Errorf("given up %v after the ping, want %v", got, want)
		}
	})
}

// TestMessageThatDoesNotEnd sends one byte a second: each is a sign of life of
// the connection, but none of the message.
func TestMessageThatDoesNotEnd(t *testing.T) {
	r := newRoles(t)
	for name, limited := range map[string]int{"one byte and nothing more": 1, "a byte a second": 1000} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			_, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
			time.Sleep(time.Minute) // quiet between messages is no fault
			start := time.Now()
			told := make(chan wire.Goodbye, 1)
			go func() { told <- s.readUntilGoodbye() }()
			for _, c := range frame(wire.TypeOpenSession, make([]byte, 1000))[:limited] {
				if _, err := s.tls.Write([]byte{c}); err != nil {
					break
				}
				select {
				case <-end.done:
				case <-time.After(time.Second):
				}
			}
			if err := end.wait(); !errors.Is(err, errSlow) {
				t.Errorf("%s: Run returned %v, want %v", name, err, errSlow)
			}
			if got := time.Since(start); got != MessageTimeout {
				t.Errorf("%s: closed after %v, want %v", name, got, MessageTimeout)
			}
			if m := <-told; m.Reason != wire.ReasonTimeout {
				t.Errorf("%s: the peer was told %v", name, m)
			}
		})
	}
}

func TestFloodIsClosed(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		_, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		told := make(chan wire.Goodbye, 1)
		go func() { told <- s.readUntilGoodbye() }()
		ping := wire.AppendMessage(nil, wire.Ping{})
		send := func(n int) {
			for range n {
				s.tls.Write(ping)
			}
			synctest.Wait()
		}
		send(burst * portalRate)
		for range 10 { // a rate that is allowed for ever
			time.Sleep(time.Second)
			send(portalRate)
		}
		select {
		case <-end.done:
			t.Fatalf("ended within its rate: %v", end.err)
		default:
		}
		send(1)
		if err := end.wait(); err == nil || !strings.Contains(err.Error(), "200 messages a second") {
			t.Errorf("Run returned %v", err)
		}
		if m := <-told; m.Reason != wire.ReasonProtocol {
			t.Errorf("the peer was told %v", m)
		}
	})
}

// TestTinyRecordsCountAsMessages: a byte in a TLS record of its own costs as
// much work as a message.
func TestTinyRecordsCountAsMessages(t *testing.T) {
	r := newRoles(t)
	const unknown = 0x7fff // a type that is skipped
	message := binary.BigEndian.AppendUint16(nil, unknown)
	message = binary.BigEndian.AppendUint32(message, wire.MaxControl)
	message = append(message, make([]byte, wire.MaxControl)...)
	for piece, closed := range map[int]bool{len(message): false, 1000: false, 1: true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
			go s.readUntilGoodbye()
			for range burst*portalRate*messageReads/wire.MaxControl + 1 {
				for part := range slices.Chunk(message, piece) {
					if _, err := s.tls.Write(part); err != nil {
						break
					}
				}
			}
			synctest.Wait()
			select {
			case <-end.done:
				if !closed {
					t.Errorf("pieces of %d bytes: ended: %v", piece, end.err)
				}
			default:
				if closed {
					t.Errorf("pieces of %d bytes: %d messages were taken", piece, c.Unknown())
				}
				s.send(wire.Goodbye{})
			}
			end.wait()
		})
	}
}

// TestServerMayBurst: what a portal takes from its server has no such limit,
// for a new policy comes all at once.
func TestServerMayBurst(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		got := 0
		_, end, s := portalAgainst(t, r, a, b, func(wire.ToPortal) error { got++; return nil })
		for range 5 * burst * portalRate {
			s.send(wire.GrantsComplete{Version: 1})
		}
		s.send(wire.Goodbye{})
		end.wait()
		if got != 5*burst*portalRate {
			t.Errorf("%d messages, want %d", got, 5*burst*portalRate)
		}
	})
}

// TestPeerThatDoesNotRead is left waiting, and nobody waits for it.
func TestPeerThatDoesNotRead(t *testing.T) {
	r := newRoles(t)
	grant := wire.PutGrant{Grant: make([]byte, wire.MaxGrant)}
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn, end, _ := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		start := time.Now()
		conn.Send(grant)
		if err := end.wait(); err == nil || !strings.Contains(err.Error(), "write to spiffe://example.org/portal/p") {
			t.Errorf("Run returned %v", err)
		}
		if got := time.Since(start); got != writeTimeout {
			t.Errorf("one message: closed after %v, want %v", got, writeTimeout)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn, end, _ := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		start := time.Now()
		for range 2 * maxQueue / wire.MaxGrant {
			conn.Send(grant)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("Send waited %v", got)
		}
		if err := end.wait(); !errors.Is(err, errQueue) {
			t.Errorf("Run returned %v, want %v", err, errQueue)
		}
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if conn.unsent > maxQueue+1<<16 {
			t.Errorf("%d bytes wait, want at most %d and a message", conn.unsent, maxQueue)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn, end, _ := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		conn.Send(grant)
		time.Sleep(time.Second)
		start := time.Now()
		conn.Close(wire.ReasonShutdown, "")
		if err := end.wait(); err != nil {
			t.Errorf("Run of the side that closed: %v, want nil", err)
		}
		if got := time.Since(start); got != goodbyeTimeout {
			t.Errorf("Goodbye took %v, want %v", got, goodbyeTimeout)
		}
	})
}

// TestSlowPeerGetsItAll: 2 MB at 16 KB/s take minutes, and that is no fault.
func TestSlowPeerGetsItAll(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		const n = 1000
		for range n {
			conn.Send(wire.PutGrant{Grant: make([]byte, wire.MaxGrant)})
		}
		start := time.Now()
		for i := range n {
			s.want(wire.TypePutGrant)
			if i%8 == 0 {
				time.Sleep(time.Second)
			}
		}
		if time.Since(start) < 2*time.Minute {
			t.Errorf("took %v: this test tests nothing", time.Since(start))
		}
		// Nor is what was sent long ago held against it.
		for range maxQueue/(n*wire.MaxGrant) + 1 {
			for range n {
				conn.Send(wire.PutGrant{Grant: make([]byte, wire.MaxGrant)})
			}
			for range n {
				s.want(wire.TypePutGrant)
			}
		}
		s.send(wire.Goodbye{})
		if err := end.wait(); !isGoodbye(err, wire.ReasonNone) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestCancelledRunSaysGoodbye(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		s := script{t, nil}
		greeted := make(chan struct{})
		go func() {
			defer close(greeted)
			s.tls = tls.Server(b, r.serverTLS())
			s.want(wire.TypeHello)
			s.send(wire.Welcome{Version: wire.ControlVersion})
		}()
		conn, _, err := r.dialer().greet(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		<-greeted
		end := run(ctx, conn, nothing[wire.ToPortal](t))
		time.Sleep(time.Minute)
		cancel()
		s.wantGoodbye(wire.ReasonShutdown)
		if err := end.wait(); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
}
