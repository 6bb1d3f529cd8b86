package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
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
