package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// TestStrangersAreClosedQuietly sends what scanners and lost programs send:
// nothing that is no TLS is answered.
func TestStrangersAreClosedQuietly(t *testing.T) {
	r := newRoles(t)
	for name, b := range map[string]string{
		"nothing":      "",
		"HTTP":         "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
		"SSH":          "SSH-2.0-OpenSSH_9.9\r\n",
		"RDP":          "\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
		"line ends":    "\n\n\n\n\n\n",
		"our messages": string(wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion})),
		"zeros":        strings.Repeat("\x00", 1000),
	} {
		a, b2 := tcpPipe(t)
		go func() {
			io.WriteString(a, b)
			a.(*net.TCPConn).CloseWrite()
		}()
		acc, err := Accept(t.Context(), b2, r.serverTLS())
		if err == nil || acc != nil || len(err.Error()) > 1024 {
			t.Errorf("%s: accepted %v, %v", name, acc, err)
		}
		b2.Close()
		if got, _ := io.ReadAll(a); len(got) > 0 {
			t.Errorf("%s: answered with %x", name, got)
		}
	}
}

// TestGreetingHasOneDeadline lets a stranger stop, or dribble, at every stage.
func TestGreetingHasOneDeadline(t *testing.T) {
	r := newRoles(t)
	hello := wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: "x"})
	dribble := func(w io.Writer, b []byte) {
		for _, c := range b {
			if _, err := w.Write([]byte{c}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	for name, peer := range map[string]func(net.Conn){
		"silent":       func(net.Conn) {},
		"one byte":     func(c net.Conn) { c.Write([]byte{22}) },
		"a line end":   func(c net.Conn) { c.Write([]byte{'\n'}) },
		"slow TLS":     func(c net.Conn) { dribble(c, bytes.Repeat([]byte{22, 3, 1, 64, 0}, 100)) },
		"TLS, then no": func(c net.Conn) { tls.Client(c, r.portal.ClientTLS(identity.ProtocolControl, anyone)).Handshake() },
		"TLS late, then a slow hello": func(c net.Conn) {
			time.Sleep(HandshakeTimeout / 2)
			d := tls.Client(c, r.portal.ClientTLS(identity.ProtocolControl, anyone))
			if d.Handshake() == nil {
				dribble(d, hello)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			done := make(chan struct{})
			go func() { peer(a); close(done) }()
			start := time.Now()
			acc, err := Accept(t.Context(), b, r.serverTLS())
			if err == nil || acc != nil {
				t.Errorf("%s: accepted", name)
			}
			if got := time.Since(start); got != HandshakeTimeout {
				t.Errorf("%s: given up after %v, want %v: %v", name, got, HandshakeTimeout, err)
			}
			b.Close()
			<-done
		})
	}
	synctest.Test(t, func(t *testing.T) { // the other way: a server that never answers
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s := script{t, tls.Server(b, r.serverTLS())}
			s.want(wire.TypeHello)
			dribble(s.tls, wire.AppendMessage(nil, wire.Welcome{Version: wire.ControlVersion}))
		}()
		ctx, cancel := context.WithTimeout(t.Context(), HandshakeTimeout)
		defer cancel()
		start := time.Now()
		if _, _, err := r.dialer().greet(ctx, a); err == nil {
			t.Error("greeted")
		}
		if got := time.Since(start); got != HandshakeTimeout {
			t.Errorf("given up after %v, want %v", got, HandshakeTimeout)
		}
		a.Close()
		<-done
	})
}

// TestGreetingLeavesNoDeadline: what was limited in the greeting is not
// limited after it.
func TestGreetingLeavesNoDeadline(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		handled := make(chan wire.FromPortal, 1)
		_, end, s := serverAgainst(t, r, a, b, func(m wire.FromPortal) error { handled <- m; return nil })
		time.Sleep(3 * time.Minute)
		s.send(wire.SessionDone{Reason: wire.ReasonIdle})
		<-handled
		s.send(wire.Goodbye{})
		end.wait()
	})
}

func TestServerRefusesGreetings(t *testing.T) {
	r := newRoles(t)
	for _, tt := range []struct {
		name   string
		b      []byte
		reason wire.Reason
		text   string // in the error here and in what the peer is told
	}{
		{"version 1", wire.AppendMessage(nil, wire.Hello{Version: 1}), wire.ReasonVersion, fmt.Sprintf("the server speaks version %d of the control protocol, portal p version 1: upgrade portal p", wire.ControlVersion)},
		{"the version before", wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion - 1}), wire.ReasonVersion, fmt.Sprintf("the server speaks version %d of the control protocol, portal p version %d: upgrade portal p", wire.ControlVersion, wire.ControlVersion-1)},
		{"another message first", wire.AppendMessage(nil, wire.OpenSession{Request: 1, Peer: "q"}), wire.ReasonProtocol, "type 16 came first"},
		{"Goodbye first", wire.AppendMessage(nil, wire.Goodbye{}), wire.ReasonProtocol, "type 5 came first"},
		{"an unknown type first", frame(999, []byte{1}), wire.ReasonProtocol, "type 999 came first"},
		{"length 0", header(wire.TypeHello, 0), wire.ReasonProtocol, "0 bytes"},
		{"length 2^32-1", header(wire.TypeHello, 0xffffffff), wire.ReasonProtocol, "4294967295 bytes"},
		{"malformed", frame(wire.TypeHello, []byte{1}), wire.ReasonProtocol, "malformed"},
		{"trailing byte", frame(wire.TypeHello, []byte{0, 1, 0, 0, 0}), wire.ReasonProtocol, "malformed"},
	} {
		a, b := tcpPipe(t)
		done := make(chan wire.Goodbye, 1)
		go func() {
			s := script{t, tls.Client(a, r.portal.ClientTLS(identity.ProtocolControl, anyone))}
			s.write(tt.b)
			done <- s.readUntilGoodbye()
		}()
		_, err := Accept(t.Context(), b, r.serverTLS())
		if err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.text)
		}
		if m := <-done; m.Reason != tt.reason || !strings.Contains(m.Text, tt.text) {
			t.Errorf("%s: the peer was told %+v, want %v with %q", tt.name, m, tt.reason, tt.text)
		}
	}
}

func TestNewerPeerIsWelcomed(t *testing.T) {
	r := newRoles(t)
	a, b := tcpPipe(t)
	go func() {
		s := script{t, tls.Client(a, r.portal.ClientTLS(identity.ProtocolControl, anyone))}
		s.send(wire.Hello{Version: 0xffff, Software: "from tomorrow"})
	}()
	acc, err := Accept(t.Context(), b, r.serverTLS())
	if err != nil || acc.Hello.Version != 0xffff || acc.Hello.Software != "from tomorrow" || acc.Peer.ID != r.portal.ID {
		t.Errorf("accepted %+v, %v", acc, err)
	}
}

func TestRefusedPeerIsToldWhy(t *testing.T) {
	r := newRoles(t)
	a, b := tcpPipe(t)
	go func() {
		acc, err := Accept(t.Context(), b, r.serverTLS())
		if err != nil {
			t.Error(err)
			return
		}
		acc.Refuse(wire.ReasonBusy, "too many portals")
	}()
	_, _, err := r.dialer().greet(t.Context(), a)
	if !isGoodbye(err, wire.ReasonBusy) || !strings.Contains(err.Error(), `"too many portals"`) {
		t.Errorf("greet: %v", err)
	}
}

// TestPortalSaysWhatIsWrongWithItsServer has servers a portal cannot use.
func TestPortalSaysWhatIsWrongWithItsServer(t *testing.T) {
	ca := newAuthority(t)
	r := roles{ca.issue(t, identity.Portal, "p"), ca.issue(t, identity.Server, "s")}
	asServer := func(c *identity.Credentials, then func(script)) func(*testing.T, net.Conn) {
		return func(t *testing.T, raw net.Conn) {
			d := tls.Server(raw, c.ServerTLS(identity.ProtocolControl, anyone))
			if d.Handshake() == nil {
				then(script{t, d})
			}
		}
	}
	for _, tt := range []struct {
		name   string
		server func(*testing.T, net.Conn)
		want   string
	}{
		{"a later version", asServer(r.server, func(s script) {
			s.want(wire.TypeHello)
			s.send(wire.Welcome{Version: wire.ControlVersion + 1})
		}), fmt.Sprintf("the server speaks version %d of the control protocol, this program version %d: upgrade this program", wire.ControlVersion+1, wire.ControlVersion)},
		{"an earlier version", asServer(r.server, func(s script) {
			s.want(wire.TypeHello)
			s.send(wire.Welcome{Version: wire.ControlVersion - 1})
		}), fmt.Sprintf("the server speaks version %d of the control protocol, this program version %d: upgrade the server", wire.ControlVersion-1, wire.ControlVersion)},
		{"another message first", asServer(r.server, func(s script) {
			s.want(wire.TypeHello)
			s.send(wire.GrantsComplete{Version: 1})
		}), "type 37 before its welcome"},
		{"a portal's message first", asServer(r.server, func(s script) {
			s.want(wire.TypeHello)
			s.send(wire.Hello{Version: wire.ControlVersion})
		}), "wrong direction"},
		{"silent close", asServer(r.server, func(s script) {
			s.want(wire.TypeHello)
			s.tls.Close()
		}), "without a word"},
		{"a portal in the server's place", asServer(r.portal, func(s script) { s.read() }), "expected a server"},
		{"a relay in the server's place", asServer(ca.issue(t, identity.Relay, "s"), func(s script) { s.read() }), "expected a server"},
		{"server of another CA", asServer(newAuthority(t).issue(t, identity.Server, "s"), func(s script) { s.read() }), "unknown authority"},
		{"server that knows another CA", func(t *testing.T, raw net.Conn) {
			other := newAuthority(t).issue(t, identity.Server, "s")
			cfg := other.ServerTLS(identity.ProtocolControl, anyone)
			cfg.GetCertificate = r.server.ServerTLS(identity.ProtocolControl, anyone).GetCertificate
			tls.Server(raw, cfg).Handshake()
		}, "it refused the certificate of spiffe://example.org/portal/p"},
		{"no TLS", func(_ *testing.T, raw net.Conn) { io.WriteString(raw, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "speaks no TLS"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			tt.server(t, c)
		}()
		conn, _, err := r.dialer().Dial(t.Context(), l.Addr().String())
		if err == nil || conn != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "greet server "+l.Addr().String()) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		<-done
		l.Close()
		if _, _, err = r.dialer().Dial(t.Context(), l.Addr().String()); err == nil || err.Error() != "dial server "+l.Addr().String()+": connect: connection refused" {
			t.Errorf("nobody there: %v", err)
		}
	}
}

func TestCancelledGreetingEndsAtOnce(t *testing.T) {
	r := newRoles(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, _, err := r.dialer().greet(ctx, a)
		if err == nil || errors.Is(err, io.EOF) || time.Since(start) != time.Second {
			t.Errorf("greet ended after %v: %v", time.Since(start), err)
		}
	})
}

func TestRelayIsWelcomedToo(t *testing.T) {
	ca := newAuthority(t)
	relay, server := ca.issue(t, identity.Relay, "r"), ca.issue(t, identity.Server, "s")
	a, b := tcpPipe(t)
	got := make(chan wire.FromRelay, 1)
	served := make(chan error, 1)
	go func() {
		acc, err := Accept(t.Context(), b, server.ServerTLS(identity.ProtocolControl, anyone))
		if err != nil {
			served <- err
			return
		}
		c := WelcomeRelay(acc, wire.Welcome{Version: wire.ControlVersion}, discard)
		served <- c.Run(t.Context(), func(m wire.FromRelay) error {
			got <- m
			c.Close(wire.ReasonShutdown, "")
			return nil
		})
	}()
	d := &Dialer[wire.ToRelay, wire.FromRelay]{Credentials: relay, Parse: wire.ParseToRelay, Log: discard}
	conn, _, err := d.greet(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	conn.Send(wire.RelayLoad{Sessions: 5})
	if err := conn.Run(t.Context(), nothing[wire.ToRelay](t)); !isGoodbye(err, wire.ReasonShutdown) {
		t.Errorf("relay: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("server: %v", err)
	}
	if m, want := <-got, (wire.RelayLoad{Sessions: 5}); m != want {
		t.Errorf("server got %v, want %v", m, want)
	}
}
