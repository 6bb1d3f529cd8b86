package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/proxy"
)

// maxSaid bounds what is read of a server that does not speak TLS.
const maxSaid = 4096

// dial is how TCP connections are made: net.Dialer's.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// server looks at one address: TCP, TLS, and whether the server proves itself. It says no
// Hello, so that server does not take it for a connection of this portal's.
func server(ctx context.Context, d dial, c *identity.Credentials, s Server) Server {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	began := time.Now()
	raw, err := d(ctx, "tcp", s.place())
	if err != nil {
		s.Fault, s.Err = connectFault(err), err
		return s
	}
	defer raw.Close()
	s.Took = time.Since(began)
	cfg := c.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
	explain := identity.Watch(cfg)
	conn := tls.Client(raw, cfg)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		peer, _ := identity.PeerOf(conn.ConnectionState())
		s.Proven = peer.ID.Name
		return s
	}
	err = explain(err)
	s.Took, s.Fault, s.Err = 0, handshakeFault(err), err
	switch s.Fault {
	case Foreign:
		shown := err.(*identity.Intercepted).Shown
		s.Shown, s.Issuer = owner(shown), shown.Issuer.String()
	case NoTLS:
		s.Said = said(ctx, d, s)
	}
	return s
}

// atRelay begins TLS at a relay's shared port, as a leg does there.
func atRelay(ctx context.Context, d dial, c *identity.Credentials, relay string, at netip.AddrPort) Try {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	raw, err := d(ctx, "tcp", at.String())
	if err != nil {
		return Try{Fault: connectFault(err), Err: err}
	}
	defer raw.Close()
	cfg := c.ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, relay))
	explain := identity.Watch(cfg)
	if err := tls.Client(raw, cfg).HandshakeContext(ctx); err != nil {
		return Try{Fault: handshakeFault(explain(err)), Err: err}
	}
	return Try{}
}

// owner says whose a certificate is.
func owner(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.String()
}

// said asks a server that does not speak TLS what it is, in the words of HTTP.
func said(ctx context.Context, d dial, s Server) string {
	conn, err := d(ctx, "tcp", s.place())
	if err != nil {
		return ""
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", s.Host)
	b, _ := io.ReadAll(io.LimitReader(conn, maxSaid))
	return firstWords(b)
}

// firstWords is the status line of an answer of HTTP and where it leads, or the first line
// of another.
func firstWords(b []byte) string {
	head, _, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	text := lines[0]
	for _, l := range lines[1:] {
		if key, value, ok := strings.Cut(l, ":"); ok && strings.EqualFold(key, "Location") {
			text += ", to " + strings.TrimSpace(value)
		}
	}
	const most = 200
	return strings.ToValidUTF8(text[:min(len(text), most)], "?")
}

// connectFault is what an error of connecting means.
func connectFault(err error) Fault {
	switch {
	case errors.As(err, new(*proxy.Error)):
		return AtProxy
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case timedOut(err):
		return Silent
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Unreachable
	}
	return OtherFault
}

// handshakeFault is what an error of a handshake means, as identity.Watch explains it.
func handshakeFault(err error) Fault {
	other, intercepted := errors.AsType[*identity.Intercepted](err)
	switch {
	case intercepted && other.Said != "":
		return NoTLS
	case intercepted && other.Shown != nil:
		return Foreign
	case intercepted:
		return Stranger
	case timedOut(err):
		return Swallowed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Cut
	}
	return OtherFault
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// connect times a TCP connection, the better of two.
func connect(ctx context.Context, d dial, to netip.AddrPort) Try {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	var t Try
	for range 2 {
		began := time.Now()
		conn, err := d(ctx, "tcp", to.String())
		if err != nil {
			if t.Took > 0 {
				return t // it was there
			}
			return Try{Fault: connectFault(err), Err: err}
		}
		took := max(time.Since(began), time.Microsecond)
		conn.Close()
		if t.Took == 0 || took < t.Took {
			t.Took = took
		}
	}
	return t
}
