package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/proto/identity"
)

// evil is what an attacker would like to see in a log.
const evil = "x\nlevel=INFO msg=\"accepted\"\x1b[2J\u202e\x00"

// T18, B13 and B29: whatever a stranger calls himself, a log has whole lines of its own making.
func TestStrangersWriteNoLogLines(t *testing.T) {
	const shared = 8443
	w := newNetwork(t, daemon.Set("shared_tcp_port", shared), daemon.Set("log_level", "debug"))
	stranger := w.lab.Public("stranger")
	long := strings.Repeat("A", 250) + "."
	configs := []*tls.Config{
		{NextProtos: []string{evil}},
		{NextProtos: []string{strings.Repeat("\n", 255)}, ServerName: "x"},
		{ServerName: strings.Repeat(long, 200), NextProtos: []string{identity.ProtocolControl}},
		{NextProtos: []string{identity.ProtocolControl}, Certificates: []tls.Certificate{selfSigned(t, evil)}},
		{NextProtos: []string{identity.ProtocolRelay}, Certificates: []tls.Certificate{selfSigned(t, strings.Repeat(evil, 500))}},
		{NextProtos: []string{identity.ProtocolControl}, MaxVersion: tls.VersionTLS12},
	}
	for _, to := range []struct {
		daemon *daemon.Daemon
		port   uint16
	}{{w.Server.Daemon, 443}, {w.relay.Daemon, shared}} {
		addr := w.serverAddr()
		if to.daemon == w.relay.Daemon {
			addr = w.relayAddr(to.port)
		}
		mark, open := to.daemon.Process().Mark(), to.daemon.Descriptors()
		for _, config := range configs {
			config := config.Clone()
			config.InsecureSkipVerify = true // a stranger believes everything
			conn := stranger.Dial("tcp", addr)
			await.Limit(t, conn)
			c := tls.Client(conn, config)
			if err := c.Handshake(); err == nil {
				io.Copy(io.Discard, c) // the server's half of TLS 1.3 ends after the client's
			}
			conn.Close()
		}
		for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", evil, "\n", "\x16\x03\x01\xff\xff" + evil} {
			conn := stranger.Dial("tcp", addr)
			await.Limit(t, conn)
			io.WriteString(conn, text)
			conn.Close()
		}
		await.Until(t, "rid of the strangers", func() error {
			if n := to.daemon.Descriptors(); n > open {
				return fmt.Errorf("%d descriptors are open, %d were", n, open)
			}
			return nil
		})
		lines := 0
		for line := range strings.Lines(to.daemon.Log()[mark:]) {
			lines++
			text := strings.TrimSuffix(line, "\n")
			if !strings.HasPrefix(text, "time=") || len(text) > 1024 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s logged a line of %d bytes that is not its own: %q", to.daemon.Name(), len(text), text)
			}
		}
		if most := 2 * (len(configs) + 5); lines == 0 || lines > most {
			t.Errorf("%s logged %d lines for %d strangers", to.daemon.Name(), lines, len(configs)+5)
		}
	}
}

// selfSigned is a certificate that says whatever it likes of its holder.
func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		URIs:      []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/portal/" + name}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
