package joining

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/proto/identity"
)

// TestExpiredCertificateEndsWhatRuns: the server is away, so that a portal cannot renew a certificate that ends under an
// open connection. It says so before; the connection lives until the end, and is cut within a minute after it (F46).
func TestExpiredCertificateEndsWhatRuns(t *testing.T) {
	stage.EnterIdle(t)
	m := newMachine(t, nil)
	ann := m.running["ann"]
	ann.stop()
	const life = 15 * time.Second
	end := time.Now().Add(life).Truncate(time.Second)
	m.certify("ann", end)
	m.launchOf(residents[3])
	m.waitReady(residents[3])
	ann = m.running["ann"]
	m.serve()
	var c net.Conn
	await.Until(t, "the forward carries", func() (err error) {
		if c, err = net.Dial("tcp", m.entry); err == nil {
			if err = pingPong(c); err != nil {
				c.Close()
			}
		}
		return err
	})
	defer c.Close()
	m.server.stop()

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for err := error(nil); err == nil && last.Before(end.Add(90*time.Second)); <-tick.C {
		if err = pingPong(c); err == nil {
			last = time.Now()
		}
	}
	t.Logf("cut %v after the certificate's end", last.Sub(end).Round(100*time.Millisecond))
	if last.Before(end) || last.After(end.Add(time.Minute)) {
		t.Errorf("the last answer came %v after the certificate's end, want within a minute", last.Sub(end))
	}
	soon, over := ann.when("the certificate expires soon and was not renewed yet"), ann.when("the certificate has expired and was not renewed")
	if soon.IsZero() || !soon.Before(end) || over.IsZero() || over.Before(end) {
		t.Errorf("it warned at %v and said that it was over at %v; the end was %v\n%s", soon, over, end, ann.text())
	}
	if !strings.Contains(m.running["plant"].text(), "carrier dropped") {
		t.Errorf("the other portal does not say what it cut:\n%s", m.running["plant"].text())
	}
	if again, err := net.Dial("tcp", m.entry); err == nil {
		again.SetDeadline(time.Now().Add(3 * time.Second))
		if pingPong(again) == nil {
			t.Error("a new connection is carried under a certificate that has ended")
		}
		again.Close()
	}

	// With the server back it is renewed late, and all is well.
	m.startServer("server")
	await.Within(t, "renewed", time.Minute, m.echo)
}

// certify gives a portal that does not run another certificate for its key, which ends soon.
func (w *world) certify(name string, end time.Time) {
	w.t.Helper()
	in := func(folder, name string) string { return filepath.Join(w.folder(folder), name) }
	authorities, err := identity.LoadCertificates(in("server", "ca.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := identity.LoadKey(in("server", "ca.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	held, err := identity.LoadCertificates(in(name, "cert.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	next := &x509.Certificate{
		SerialNumber: new(big.Int).Add(held[0].SerialNumber, big.NewInt(1)), URIs: held[0].URIs,
		NotBefore: time.Now().Add(-2 * time.Second), NotAfter: end,
		KeyUsage: held[0].KeyUsage, ExtKeyUsage: held[0].ExtKeyUsage, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, next, authorities[0], held[0].PublicKey, key)
	if err == nil {
		next, err = x509.ParseCertificate(der)
	}
	if err == nil {
		err = identity.ReplaceFile(in(name, "cert.pem"), identity.EncodeCertificates(next), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// pingPong asks once on a connection that gives back what it gets.
func pingPong(c net.Conn) error {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "ping" {
		return fmt.Errorf("came back as %q", b)
	}
	return nil
}

// when returns when a program has logged a text first; zero: never.
func (p *program) when(text string) time.Time {
	for line := range strings.Lines(p.text()) {
		if !strings.Contains(line, text) {
			continue
		}
		_, at, _ := strings.Cut(line, "time=")
		at, _, _ = strings.Cut(at, " ")
		if when, err := time.Parse(time.RFC3339Nano, at); err == nil {
			return when
		}
	}
	return time.Time{}
}
