package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/netport/netport/proto/wire"
)

func header(t wire.Type, length uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, uint16(t)), length)
}

func frame(t wire.Type, body []byte) []byte {
	return append(header(t, uint32(len(body))), body...)
}

func TestMessagesArriveInOrderBothWays(t *testing.T) {
	a, b := tcpPipe(t)
	r := newRoles(t)
	const n = 500
	// The server's rate limit lets a portal's burst through.
	var fromPortal []uint32
	var server *serverConn
	var serverEnd *ending
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		acc, err := Accept(t.Context(), b, r.serverTLS())
		if err != nil {
			t.Error(err)
			return
		}
		server = WelcomePortal(acc, wire.Welcome{Version: wire.ControlVersion, Time: 77}, discard)
		for i := range n {
			server.Send(wire.GrantsComplete{Version: uint64(i)})
		}
		serverEnd = run(t.Context(), server, func(m wire.FromPortal) error {
			fromPortal = append(fromPortal, m.(wire.OpenSession).Request)
			return nil
		})
	}()
	portal, welcome, err := r.dialer().greet(t.Context(), a)
	<-accepted
	if err != nil {
		t.Fatal(err)
	}
	if welcome.Time != 77 || portal.Peer().ID != r.server.ID || server.Peer().ID != r.portal.ID || server.Hello().Software != "test/1" || portal.Hello() != server.Hello() {
		t.Errorf("welcome %+v, peers %v and %v, hello %v", welcome, portal.Peer(), server.Peer(), server.Hello())
	}
	if portal.RemoteAddr().String() != b.LocalAddr().String() {
		t.Errorf("remote address %v, want %v", portal.RemoteAddr(), b.LocalAddr())
	}
	for i := range n {
		portal.Send(wire.OpenSession{Request: uint32(i + 1), Peer: "q"})
	}
	var toPortal []uint64
	err = portal.Run(t.Context(), func(m wire.ToPortal) error {
		if toPortal = append(toPortal, m.(wire.GrantsComplete).Version); len(toPortal) == n {
			portal.Close(wire.ReasonShutdown, "done")
		}
		return nil
	})
	if err != nil {
		t.Errorf("Run of the side that closed: %v, want nil", err)
	}
	if err := serverEnd.wait(); !isGoodbye(err, wire.ReasonShutdown) || !strings.Contains(err.Error(), `"done"`) {
		t.Errorf("Run of the other side: %v, want its Goodbye", err)
	}
	for i := range n {
		if len(toPortal) != n || toPortal[i] != uint64(i) || len(fromPortal) != n || fromPortal[i] != uint32(i+1) {
			t.Fatalf("%d and %d messages, or out of order at %d", len(toPortal), len(fromPortal), i)
		}
	}
}

// TestServerRefusesWhatBreaksTheProtocol sends one thing after the greeting.
// The server says so, and its Run returns why.
func TestServerRefusesWhatBreaksTheProtocol(t *testing.T) {
	r := newRoles(t)
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"length 0", header(wire.TypeOpenSession, 0), "0 bytes"},
		{"length above the limit", header(wire.TypeOpenSession, wire.MaxControl+1), "16385 bytes"},
		{"length 2^31-1", header(wire.TypeOpenSession, 0x7fffffff), "2147483647 bytes"},
		{"length 2^32-1", header(wire.TypeOpenSession, 0xffffffff), "4294967295 bytes"},
		{"unknown type of length 2^32-1", header(999, 0xffffffff), "4294967295 bytes"},
		{"malformed body", frame(wire.TypeOpenSession, []byte{1}), "malformed"},
		{"trailing byte", frame(wire.TypePing, make([]byte, 9)), "malformed"},
		{"Hello again", wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion}), "after the greeting"},
		{"Welcome", wire.AppendMessage(nil, wire.Welcome{Version: wire.ControlVersion}), "wrong direction"},
		{"Session", wire.AppendMessage(nil, wire.GrantsComplete{Version: 1}), "wrong direction"},
		{"a relay's message", wire.AppendMessage(nil, wire.RelayLoad{}), "wrong direction"},
		{"a message to a relay", wire.AppendMessage(nil, wire.EndSession{}), "wrong direction"},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "malformed"},
	} {
		a, b := tcpPipe(t)
		_, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		s.write(tt.b)
		s.wantGoodbye(wire.ReasonProtocol)
		if err := end.wait(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Run returned %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestPortalRefusesWhatBreaksTheProtocol(t *testing.T) {
	r := newRoles(t)
	for _, m := range []wire.Message{wire.Welcome{Version: wire.ControlVersion}, wire.Hello{Version: wire.ControlVersion}, wire.OpenSession{Request: 1, Peer: "p"}, wire.EndSession{}} {
		a, b := tcpPipe(t)
		_, end, s := portalAgainst(t, r, a, b, nothing[wire.ToPortal](t))
		s.send(m)
		s.wantGoodbye(wire.ReasonProtocol)
		if err := end.wait(); err == nil {
			t.Errorf("%T: Run returned nil", m)
		}
	}
}

func TestErrorOfTheHandlerEndsTheConnection(t *testing.T) {
	a, b := tcpPipe(t)
	wrong := errors.New("session unknown")
	_, end, s := serverAgainst(t, newRoles(t), a, b, func(wire.FromPortal) error { return wrong })
	s.send(wire.SessionDone{})
	m := s.readUntilGoodbye()
	if err := end.wait(); !errors.Is(err, wrong) || m.Reason != wire.ReasonProtocol || m.Text != wrong.Error() {
		t.Errorf("Run returned %v, the peer was told %v", err, m)
	}
}

func TestUnknownTypesAreSkippedAndCounted(t *testing.T) {
	a, b := tcpPipe(t)
	handled := make(chan wire.FromPortal, 1)
	conn, end, s := serverAgainst(t, newRoles(t), a, b, func(m wire.FromPortal) error { handled <- m; return nil })
	s.write(frame(999, []byte{1}))
	s.write(frame(0, make([]byte, wire.MaxControl))) // the longest there is
	s.send(wire.SessionDone{Reason: wire.ReasonIdle})
	if got, want := (<-handled), (wire.SessionDone{Reason: wire.ReasonIdle}); got != want || conn.Unknown() != 2 {
		t.Errorf("handled %v after %d unknown messages, want %v after 2", got, conn.Unknown(), want)
	}
	s.send(wire.Goodbye{Reason: wire.ReasonReplaced})
	if err := end.wait(); !isGoodbye(err, wire.ReasonReplaced) {
		t.Errorf("Run returned %v", err)
	}
}

// TestFramesAreReadHoweverTheyAreCut sends the same bytes in records of many
// sizes.
func TestFramesAreReadHoweverTheyAreCut(t *testing.T) {
	r := newRoles(t)
	var all []byte
	var want []wire.FromPortal
	for i := range 20 {
		m := wire.OpenSession{Request: uint32(i + 1), Peer: strings.Repeat("a", i+1)}
		all = wire.AppendMessage(all, m)
		want = append(want, m)
	}
	for _, size := range []int{1, 2, 5, 7, 50, len(all)} {
		a, b := tcpPipe(t)
		var got []wire.FromPortal
		_, end, s := serverAgainst(t, r, a, b, func(m wire.FromPortal) error { got = append(got, m); return nil })
		for rest := all; len(rest) > 0; {
			n := min(size, len(rest))
			s.write(rest[:n])
			rest = rest[n:]
		}
		s.send(wire.Goodbye{})
		end.wait()
		if len(got) != len(want) {
			t.Fatalf("records of %d bytes: %d messages, want %d", size, len(got), len(want))
		}
		for i := range got {
			if g, w := got[i].AppendTo(nil), want[i].AppendTo(nil); !bytes.Equal(g, w) {
				t.Errorf("records of %d bytes: message %d is %x, want %x", size, i, g, w)
			}
		}
	}
}

func TestCutConnectionsAreNoCleanEnd(t *testing.T) {
	r := newRoles(t)
	full := frame(999, make([]byte, 1000))
	for _, tt := range []struct {
		name    string
		send    []byte
		closeIt func(s script)
		want    error
	}{
		{"nothing, then close_notify", nil, func(s script) { s.tls.CloseWrite() }, io.EOF},
		{"nothing, then FIN without close_notify", nil, func(s script) { s.tls.NetConn().(*net.TCPConn).CloseWrite() }, io.EOF},
		{"part of a header", full[:5], func(s script) { s.tls.CloseWrite() }, io.ErrUnexpectedEOF},
		{"a header", full[:6], func(s script) { s.tls.CloseWrite() }, io.ErrUnexpectedEOF},
		{"a byte too few", full[:len(full)-1], func(s script) { s.tls.CloseWrite() }, io.ErrUnexpectedEOF},
		{"a byte too few, then FIN", full[:len(full)-1], func(s script) { s.tls.NetConn().(*net.TCPConn).CloseWrite() }, io.ErrUnexpectedEOF},
	} {
		a, b := tcpPipe(t)
		_, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
		if len(tt.send) > 0 {
			s.write(tt.send)
		}
		tt.closeIt(s)
		if err := end.wait(); !errors.Is(err, tt.want) {
			t.Errorf("%s: Run returned %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestGoodbyeOfEitherSide(t *testing.T) {
	r := newRoles(t)
	a, b := tcpPipe(t)
	conn, end, s := serverAgainst(t, r, a, b, nothing[wire.FromPortal](t))
	conn.Send(wire.PeerState{Name: "q", Online: true})
	conn.Close(wire.ReasonReplaced, "from 192.0.2.1")
	conn.Close(wire.ReasonBusy, "")                       // only the first counts
	conn.Send(wire.PeerState{Name: "late", Online: true}) // nothing follows Goodbye
	s.want(wire.TypePeerState)
	s.wantGoodbye(wire.ReasonReplaced)
	if err := end.wait(); err != nil {
		t.Errorf("the server closed; its Run returned %v", err)
	}

	a, b = tcpPipe(t)
	portal, end, s := portalAgainst(t, r, a, b, nothing[wire.ToPortal](t))
	s.send(wire.Goodbye{Reason: wire.ReasonRevoked, Text: "since\nnow"})
	err := end.wait()
	if !isGoodbye(err, wire.ReasonRevoked) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the server said Goodbye; the portal's Run returned %v", err)
	}
	portal.Send(wire.SessionDone{}) // harmless
	portal.Probe()
	portal.Close(wire.ReasonShutdown, "")

	// The peer is gone before our Goodbye is out: we closed all the same.
	a, b = tcpPipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	acc := make(chan *Accepted, 1)
	go func() {
		x, err := Accept(t.Context(), b, r.serverTLS())
		if err != nil {
			t.Error(err)
		}
		acc <- x
	}()
	greeted := make(chan error, 1)
	go func() {
		_, _, err := r.dialer().greet(t.Context(), a)
		greeted <- err
	}()
	c := WelcomePortal(<-acc, wire.Welcome{Version: wire.ControlVersion}, discard)
	cancel()
	if err := c.Run(ctx, nothing[wire.FromPortal](t)); err != nil {
		t.Errorf("Run with a cancelled context: %v, want nil", err)
	}
	if err := <-greeted; err != nil {
		t.Errorf("a portal that is welcomed and dismissed at once: %v", err)
	}
}
