package daemon

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/gate"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/ca"
)

// connectRefused connects a portal that must be turned away, and returns the
// reason it is told.
func connectRefused(r *rig, name string) wire.Reason {
	r.t.Helper()
	_, _, err := dialer[wire.ToPortal, wire.FromPortal](r, name, wire.ParseToPortal).Dial(r.t.Context(), r.cfg.Address)
	var bye *control.Goodbye
	if !errors.As(err, &bye) {
		r.t.Fatalf("%s: %v, want to be turned away", name, err)
	}
	return bye.Reason
}

// B1, B28, B29: what comes instead of TLS.
func TestStrangers(t *testing.T) {
	r := newRig(t, "witness")
	record := func(n int) []byte { // one TLS record of a handshake
		return append([]byte{22, 3, 1, byte(n >> 8), byte(n)}, make([]byte, n)...)
	}
	hello := bytes.Repeat(record(16384), 5)
	copy(hello[5:], []byte{1, 1, 0, 0}) // a ClientHello of 64 KB
	for what, b := range map[string][]byte{
		"nothing":            nil,
		"an empty line":      []byte("\n"),
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":                []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"RDP":                {3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0},
		"zeros":              make([]byte, 4096),
		"a ClientHello of 0": record(64),
		"a huge ClientHello": hello,
		"our own messages":   wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion}),
	} {
		c := r.raw().(*net.TCPConn)
		c.Write(b)
		c.CloseWrite()
		if answer := wantClosed(t, c); bytes.Contains(answer, []byte("example")) || len(answer) > 64 {
			t.Errorf("%s: answered with %q", what, answer)
		}
	}
	r.wantServing()
}

// B1: a port scan is no news.
func TestConnectionThatIsJustClosedIsNotLogged(t *testing.T) {
	r := newRig(t, "witness")
	for range 3 {
		r.raw().Close()
	}
	r.wantServing()
	if lines := r.log.all("connection refused"); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// B2, B6: the whole of the greeting has one deadline.
func TestGreetingHasOneDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the deadline of 10 s")
	}
	r := newRig(t, "witness", "ann")
	begin := time.Now()
	idle, silent := r.raw(), r.rawTLS("ann")
	idle.Write([]byte{22})
	slow := r.rawTLS("ann")
	go func() { // a byte a second
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for _, b := range wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: strings.Repeat("x", 60)}) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			<-tick.C
		}
	}()
	for _, c := range []net.Conn{idle, silent, slow} {
		c.SetReadDeadline(begin.Add(control.HandshakeTimeout + 5*time.Second))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a greeting that takes too long is not closed")
		}
	}
	if took := time.Since(begin); took > control.HandshakeTimeout+3*time.Second {
		t.Errorf("closed after %v, the deadline is %v", took, control.HandshakeTimeout)
	}
	r.wantServing()
}

// T6: strangers who hold connections open keep nobody out.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	r := newRig(t, "witness")
	for range 2 * gate.PerPrefix {
		c := r.raw()
		c.Write([]byte{22, 3, 1})
	}
	begin := time.Now()
	r.wantServing()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("a portal needed %v to connect", took)
	}
}

// T20, T21, T22, B30, B31, B65-B71 as far as they concern the server.
func TestHandshakesThatAreRefused(t *testing.T) {
	r := newRig(t, "witness", "ann", "relay-1")
	good := r.credentials["ann"]
	base := good.ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
	with := func(change func(*tls.Config)) *tls.Config {
		cfg := base.Clone()
		change(cfg)
		return cfg
	}
	present := func(certs ...tls.Certificate) *tls.Config {
		return with(func(cfg *tls.Config) {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &certs[0], nil
			}
		})
	}
	foreign, err := ca.New("example.org", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.Load("example.org", r.cfg.CA, r.cfg.CAKey, "", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	long := good.Certificate()
	for range 100 {
		long.Certificate = append(slices.Clip(long.Certificate), own.Certificate.Raw)
	}
	for what, cfg := range map[string]*tls.Config{
		"TLS 1.2":                with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
		"no ALPN":                with(func(c *tls.Config) { c.NextProtos = nil }),
		"ALPN of the tunnel":     with(func(c *tls.Config) { c.NextProtos = []string{identity.ProtocolTunnel} }),
		"ALPN with a line break": with(func(c *tls.Config) { c.NextProtos = []string{"x\nlevel=info msg=\"accepted\" \x1b[2J"} }),
		"ALPN of 255 bytes":      with(func(c *tls.Config) { c.NextProtos = []string{strings.Repeat("x", 255)} }),
		"no certificate":         present(),
		"100 intermediates":      present(long),
		"another CA":             present(leaf(t, foreign, nil)),
		"role server":            present(leaf(t, own, func(c *x509.Certificate) { c.URIs = uris("spiffe://example.org/server/ann") })),
		"role admin":             present(leaf(t, own, func(c *x509.Certificate) { c.URIs = uris("spiffe://example.org/admin/ann") })),
		"another domain":         present(leaf(t, own, func(c *x509.Certificate) { c.URIs = uris("spiffe://example.com/portal/ann") })),
		"two names": present(leaf(t, own, func(c *x509.Certificate) {
			c.URIs = uris("spiffe://example.org/portal/ann", "spiffe://example.org/portal/bo")
		})),
		"no name but the CN":  present(leaf(t, own, func(c *x509.Certificate) { c.URIs = nil })),
		"a name with a break": present(leaf(t, own, func(c *x509.Certificate) { c.URIs = uris("spiffe://example.org/portal/x%0Alevel=info") })),
		"a DNS name beside":   present(leaf(t, own, func(c *x509.Certificate) { c.DNSNames = []string{"ann"} })),
		"server auth only":    present(leaf(t, own, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"any usage":           present(leaf(t, own, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })),
		"expired":             present(leaf(t, own, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })),
		"not valid yet":       present(leaf(t, own, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })),
	} {
		begin := time.Now()
		c := tls.Client(r.raw(), cfg)
		c.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err == nil {
			// In TLS 1.3 the client is done before the server has judged it.
			c.Write(hello)
			if b, err := io.ReadAll(c); err == nil || len(b) > 0 {
				t.Errorf("%s: served (%d bytes, %v)", what, len(b), err)
			}
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: refused after %v", what, took)
		}
	}
	// A certificate of our CA for a name or a key that nobody enrolled.
	for what, uri := range map[string]string{"another key": "spiffe://example.org/portal/ann", "another name": "spiffe://example.org/portal/nobody", "a relay's name": "spiffe://example.org/portal/relay-1", "another relay's key": "spiffe://example.org/relay/relay-1"} {
		c := tls.Client(r.raw(), present(leaf(t, own, func(c *x509.Certificate) { c.URIs = uris(uri) })))
		if err := c.Handshake(); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		c.Write(hello)
		if got := goodbye(wantClosed(t, c)); got != wire.ReasonRevoked {
			t.Errorf("%s: told %v, want %v", what, got, wire.ReasonRevoked)
		}
	}
	r.wantServing()
	if lines := r.log.all("level=info"); len(lines) > 0 {
		for _, l := range lines {
			if strings.HasPrefix(l, "level=info") || strings.Count(l, "\n") > 1 {
				t.Errorf("a stranger wrote into the log: %q", l)
			}
		}
	}
}

func TestSessionTicketsAreOff(t *testing.T) {
	r := newRig(t, "ann")
	cfg := r.credentials["ann"].ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, ""))
	cfg.SessionTicketsDisabled = false
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		c := tls.Client(r.raw(), cfg)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.Write(hello)
		readMessage(t, c) // a ticket would have come before it
		if c.ConnectionState().DidResume {
			t.Fatal("a session was resumed")
		}
		c.Close()
	}
}

// leaf makes a certificate for ann that is changed as a thief would like.
func leaf(t *testing.T, a *ca.Authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return leafOf(t, a, key, change)
}

// leafOf is leaf for a key that is there already.
func leafOf(t *testing.T, a *ca.Authority, key crypto.Signer, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "ann"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs: uris("spiffe://example.org/portal/ann"),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key.Public(), a.Key())
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func uris(list ...string) []*url.URL {
	var u []*url.URL
	for _, s := range list {
		p, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		u = append(u, p)
	}
	return u
}

// B98: of two servers on one state, the second is refused.
func TestSecondServerOnOneStateIsRefused(t *testing.T) {
	r := newRig(t)
	err := Run(t.Context(), r.cfg, slog.New(slog.DiscardHandler), nil)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another daemon runs there (process %d)", os.Getpid())) {
		t.Errorf("%v", err)
	}
	var status Status
	if err := local.Call(t.Context(), r.cfg.Socket, CommandStatus, nil, &status); err != nil {
		t.Errorf("the first server: %v", err)
	}
}
