package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
)

// answering serves TCP connections on loopback until the test ends.
func answering(t *testing.T, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// look tries a server at an address.
func look(t *testing.T, c *identity.Credentials, at netip.AddrPort) Server {
	t.Helper()
	return server(t.Context(), (&net.Dialer{}).DialContext, c, Server{Host: "netport.example.org", Port: at.Port(), Named: true, Addr: at})
}

// middlebox is a certificate as a firewall makes that looks into TLS.
func middlebox(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"netport.example.org"}, Subject: pkix.Name{CommonName: "Filter CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWhoAnswersInTheServersPlaceIsNamed(t *testing.T) {
	a := identitytest.New(t)
	own := a.Credentials(identity.Portal, "laptop")
	right := a.Credentials(identity.Server, "server").ServerTLS(identity.ProtocolControl, identity.Expect(identity.Portal, ""))
	greet := func(cfg *tls.Config) func(net.Conn) {
		return func(c net.Conn) {
			s := tls.Server(c, cfg)
			s.Handshake()
			s.Read(make([]byte, 1)) // until the other side is done
		}
	}
	box := middlebox(t)
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut.Close()
	for _, c := range []struct {
		name  string
		at    netip.AddrPort
		fault Fault
		says  string // in its line
	}{
		{"the server", answering(t, greet(right)), None, ""},
		{"nobody", netip.MustParseAddrPort(shut.Addr().String()), Refused, "refused"},
		{"a relay of the domain", answering(t, greet(a.Credentials(identity.Relay, "relay").ServerTLS(identity.ProtocolControl, func(identity.Peer) error { return nil }))), OtherFault, "expected a server"},
		{"another domain's server", answering(t, greet(identitytest.New(t).Credentials(identity.Server, "server").ServerTLS(identity.ProtocolControl, func(identity.Peer) error { return nil }))), OtherFault, "unknown authority"},
		{"a firewall that looks into TLS", answering(t, greet(&tls.Config{Certificates: []tls.Certificate{box}, NextProtos: []string{identity.ProtocolControl}})), Foreign, `a certificate of "netport.example.org", issued by "CN=Filter CA"`},
		{"a captive portal", answering(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte("HTTP/1.1 302 Found\r\nlocation: http://log.in/\r\n\r\n<p>"))
		}), NoTLS, `captive portal or proxy answers in the server's place: "HTTP/1.1 302 Found, to http://log.in/"`},
		{"SSH", answering(t, func(c net.Conn) { c.Write([]byte("SSH-2.0-OpenSSH_10\r\n")) }), NoTLS, `speaks no TLS: "SSH-2.0-OpenSSH_10"`},
		{"one that hangs up", answering(t, func(c net.Conn) { c.Read(make([]byte, 1)); c.(*net.TCPConn).SetLinger(0) }), Cut, "cut when TLS begins"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := look(t, own, c.at)
			if s.Fault != c.fault || (s.Proven == "server") != (c.fault == None) {
				t.Errorf("fault %d (%v), proven %q, want fault %d", s.Fault, s.Err, s.Proven, c.fault)
			}
			r := Judge(Facts{Servers: []Server{s}})
			var line Line
			for _, l := range r.Lines {
				if strings.HasPrefix(l.What, "server ") {
					line = l
				}
			}
			if !strings.Contains(line.Text, c.says) || (line.State == Failed) != (c.fault != None) {
				t.Errorf("it says %+v, want %q", line, c.says)
			}
			if opens := len(r.Open) > 0; opens != (c.fault != None && c.fault != OtherFault) {
				t.Errorf("to be opened: %+v", r.Open)
			}
		})
	}
}

// TestWhoAnswersInARelaysPlaceIsNamed: a relay that announces the server's port gets nothing there where the server hands
// nothing over, or it takes nothing; and something else may listen where it is said to be.
func TestWhoAnswersInARelaysPlaceIsNamed(t *testing.T) {
	a := identitytest.New(t)
	anybody := func(identity.Peer) error { return nil }
	control := a.Credentials(identity.Server, "server").ServerTLS(identity.ProtocolControl, anybody)
	relay := a.Credentials(identity.Relay, "relay-1").ServerTLS(identity.ProtocolRelay, anybody)
	either := func(forRelay *tls.Config) *tls.Config { // as package daemon of the server tells them apart; nil: nobody takes it
		return &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			switch {
			case hello.SupportedProtos[0] != identity.ProtocolRelay:
				return control, nil
			case forRelay == nil:
				hello.Conn.Close()
				return nil, net.ErrClosed
			}
			return forRelay, nil
		}}
	}
	shakes := func(cfg *tls.Config) func(net.Conn) {
		return func(c net.Conn) {
			s := tls.Server(c, cfg)
			s.Handshake()
			s.Read(make([]byte, 1)) // until the other side is done
		}
	}
	other := a.Credentials(identity.Relay, "relay-2").ServerTLS(identity.ProtocolRelay, anybody)
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut.Close()
	nobody := netip.MustParseAddrPort(shut.Addr().String())
	for _, c := range []struct {
		name       string
		cfg        *tls.Config    // of who answers
		relay      netip.AddrPort // invalid: there too
		server     bool           // it is the portal's server, too
		state      State
		says, does string
	}{
		{name: "the relay, by a port of its own", cfg: relay, state: OK},
		{name: "the relay, by the server's port", cfg: either(relay), server: true, state: OK},
		{"the server, which hands nothing over", control, netip.AddrPort{}, true, Failed, "server answers there itself", "hand_over"},
		{"the server, of which nobody takes it", either(nil), netip.AddrPort{}, true, Failed, "closes those for the relay", "take_over"},
		{"another domain's server", control, netip.AddrPort{}, false, Failed, "is no relay", "shared_tcp_port"},
		{"one that hangs up", either(nil), netip.AddrPort{}, false, Warning, "TLS with the relay does not", "let TLS through"},
		{"another relay", other, netip.AddrPort{}, false, Warning, "relay-2", "another service"},
		{"nobody, on the server's machine", control, nobody, true, Failed, "refused", "the server is to listen there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := answering(t, shakes(c.cfg))
			if !c.relay.IsValid() {
				c.relay = at
			}
			servers := `["192.0.2.1:443"]`
			if c.server {
				servers = fmt.Sprintf("[%q]", at)
			}
			m := nothing()
			m.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if !strings.HasPrefix(address, "127.") {
					return nil, syscall.ECONNREFUSED
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
			m.Ask = func(context.Context, string) (k daemon.Known, err error) {
				k.Status.Server.Connected, k.Status.Server.Address = true, "127.0.0.1:443"
				k.Relays = []wire.RelayPlace{{Name: "relay-1", Addresses: []netip.Addr{c.relay.Addr()}, Port: c.relay.Port()}}
				return k, nil
			}
			m.DialUDP = func(context.Context, string, *tls.Config) (tls.ConnectionState, error) {
				return tls.ConnectionState{}, syscall.ECONNREFUSED
			}
			m.Router = func(context.Context) (string, error) { return "", syscall.ECONNREFUSED }
			r := Judge(Examine(t.Context(), portalOf(t, a, servers), m))
			if l := line(t, r, "relay relay-1 TCP"); l.State != c.state || !strings.Contains(l.Text, c.says) || !strings.Contains(l.Do, c.does) {
				t.Errorf("it says %+v", l)
			}
			for _, o := range r.Open {
				if o.Why == "the relay: one of its ports at least" && c.relay != nobody {
					t.Errorf("a firewall is to open what is open: %+v", o)
				}
			}
		})
	}
}
