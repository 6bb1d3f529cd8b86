package daemon

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/handover"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics/metricstest"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/config"
)

// taker is the relay's side of a hand-over.
type taker struct {
	*local.Socket
	t    *testing.T
	path string
}

// taker has the server hand over, from now on, to a socket of the test's.
func (r *rig) taker(t *testing.T) *taker {
	t.Helper()
	path := filepath.Join(filepath.Dir(r.cfg.Socket), "taken.sock")
	s, err := local.ListenPackets(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r.handOver(path)
	return &taker{s, t, path}
}

// handOver has the server take another hand_over from its configuration, as SIGHUP does.
func (r *rig) handOver(path string) {
	live := r.cfg.Live()
	r.cfg.Take(&config.Config{CertificateLife: live.CertificateLife, RenewAfterExpiry: live.RenewAfterExpiry, HandOver: path})
}

// take returns what the server hands over next.
func (k *taker) take() (*net.TCPConn, []byte) {
	k.t.Helper()
	k.SetDeadline(time.Now().Add(patience))
	caller, err := k.Accept()
	if err != nil {
		k.t.Fatal(err)
	}
	c, head, err := handover.Take(caller)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c, head
}

// wantNothing fails the test if anything was handed over.
func (k *taker) wantNothing() {
	k.t.Helper()
	k.SetDeadline(time.Now().Add(-time.Second))
	if c, err := k.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		k.t.Errorf("something was handed over: %v, %v", c, err)
	}
}

// ahead is a connection that reads some bytes before those that come.
type ahead struct {
	net.Conn
	io.Reader
}

func (a ahead) Read(b []byte) (int, error) { return a.Reader.Read(b) }

// relays is what the relay's side of the handshake goes by.
func relays(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, MinVersion: tls.VersionTLS13}
}

// helloOf returns the record that a client begins with.
func helloOf(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	go tls.Client(a, cfg).Handshake()
	var header [5]byte
	if _, err := io.ReadFull(b, header[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	b.Close()
	return append(header[:], body...)
}

// inRecords cuts what one record holds into records of so many bytes.
func inRecords(record []byte, size int) (list []byte) {
	for part := range slices.Chunk(record[5:], size) {
		list = binary.BigEndian.AppendUint16(append(list, record[:3]...), uint16(len(part)))
		list = append(list, part...)
	}
	return list
}

// padded makes a ClientHello longer, by an extension that says nothing (RFC 7685).
func padded(record []byte, by int) []byte {
	b := bytes.Clone(record)
	b = binary.BigEndian.AppendUint16(append(b, 0, 21), uint16(by))
	b = append(b, make([]byte, by)...)
	grow := uint16(4 + by)
	add := func(at int) { binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+grow) }
	add(3)                                 // the record's length
	add(7)                                 // the ClientHello's, of three bytes
	at := 5 + 4 + 2 + 32                   // version and random
	at += 1 + int(b[at])                   // session id
	at += 2 + int(b[at])<<8 + int(b[at+1]) // cipher suites
	at += 1 + int(b[at])                   // compression
	add(at)
	return b
}

// TestRelaysConnectionsAreHandedOver: whole, however they come in, with nothing said to the client; and the server keeps
// nothing of them.
func TestRelaysConnectionsAreHandedOver(t *testing.T) {
	r := newRig(t, "witness", "ann", "relay-1")
	page := r.measured()
	k := r.taker(t)
	hello := helloOf(t, relays(identity.ProtocolRelay))
	if len(hello) < 1400 {
		t.Errorf("a ClientHello has %d bytes, so none here spans two segments", len(hello))
	}
	before := descriptors(t)
	handed := 0.0
	for _, c := range []struct {
		what  string
		parts [][]byte
		head  []byte
	}{
		{"TLS at once", [][]byte{hello}, hello},
		{"TLS in two segments", [][]byte{hello[:1400], hello[1400:]}, hello},
		{"TLS in many segments", slices.Collect(slices.Chunk(hello, 97)), hello},
		{"TLS in many records", [][]byte{inRecords(hello, 50)}, inRecords(hello, 50)},
		{"a long hello", [][]byte{padded(hello, 12_000)}, padded(hello, 12_000)},
		{"a preface with what follows it", [][]byte{leg.NewPreface(leg.ID{}).AppendTo(nil, wire.Secret{}), []byte("payload")}, []byte(leg.Magic)},
		{"a preface bit by bit", [][]byte{[]byte(leg.Magic[:2]), []byte(leg.Magic[2:4]), []byte(leg.Magic[4:] + "rest")}, []byte(leg.Magic)},
	} {
		client := r.raw().(*net.TCPConn)
		for i, part := range c.parts {
			if i > 0 && len(c.parts) < 5 {
				r.wantServing() // meanwhile what came before is read
			}
			client.Write(part)
		}
		client.CloseWrite()
		taken, head := k.take()
		if !bytes.Equal(head, c.head) {
			t.Errorf("%s: %d bytes were handed over with it, want %d", c.what, len(head), len(c.head))
		}
		rest, err := io.ReadAll(taken)
		if sent := bytes.Join(c.parts, nil); err != nil || !bytes.Equal(append(head, rest...), sent) {
			t.Errorf("%s: the relay has %d bytes of it, %v; want %d", c.what, len(head)+len(rest), err, len(sent))
		}
		if taken.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("%s: it comes from %v, want %v", c.what, taken.RemoteAddr(), client.LocalAddr())
		}
		io.WriteString(taken, "the relay's answer")
		taken.Close()
		if b := wantClosed(t, client); string(b) != "the relay's answer" {
			t.Errorf("%s: the client is told %q", c.what, b)
		}
		client.Close()
		handed++
	}
	r.until("the server has no connection left", func() bool { return descriptors(t) <= before })
	metricstest.Read(t, metricstest.Get(t, page)).Want(t, map[string]float64{"netport_server_connections_handed_over_total": handed})
	if lines := r.log.all("connection refused"); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

// TestHandshakeGoesOnAtTheRelay as if nobody had looked at it, though what the client sends comes cut into pieces.
func TestHandshakeGoesOnAtTheRelay(t *testing.T) {
	r := newRig(t, "witness", "ann", "relay-1")
	k := r.taker(t)
	client := tls.Client(r.raw(), r.credentials["ann"].ClientTLS(identity.ProtocolRelay, identity.Expect(identity.Relay, "relay-1")))
	failed := make(chan error, 1)
	go func() {
		_, err := client.Write([]byte("forth"))
		failed <- err
	}()
	taken, head := k.take()
	server := tls.Server(ahead{taken, io.MultiReader(bytes.NewReader(head), taken)}, r.credentials["relay-1"].ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, "ann")))
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "forth" {
		t.Errorf("the relay reads %q, %v", b, err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// shape is what an answer is made of: the types of its records, and what alerts say.
func shape(answer []byte) (s string) {
	for len(answer) >= 5 && len(answer) >= 5+int(binary.BigEndian.Uint16(answer[3:])) {
		n := 5 + int(binary.BigEndian.Uint16(answer[3:]))
		s += fmt.Sprintf("%d ", answer[0])
		if answer[0] == 21 {
			s += fmt.Sprintf("%x ", answer[5:n])
		}
		answer = answer[n:]
	}
	return s + fmt.Sprintf("%x", answer)
}

// TestOthersAreServedAsBefore: whatever is not for a relay alone gets the same answer whether the server hands over or not,
// and goes to nobody.
func TestOthersAreServedAsBefore(t *testing.T) {
	r := newRig(t, "witness")
	hello := helloOf(t, relays(identity.ProtocolRelay))
	preface := leg.NewPreface(leg.ID{}).AppendTo(nil, wire.Secret{})
	openings := map[string][]byte{
		"nothing":                      nil,
		"a byte":                       {22},
		"four bytes":                   preface[:4],
		"HTTP":                         []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"SSH":                          []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"zeros":                        make([]byte, 4096),
		"another version of prefaces":  append([]byte("NPLG\x02"), preface[5:]...),
		"a preface after something":    append([]byte{0}, preface...),
		"a preface in a record":        append([]byte{22, 3, 1, 0, 64}, preface...),
		"half a hello":                 hello[:len(hello)/2],
		"a hello with a wrong length":  append(append(bytes.Clone(hello[:7]), 0xff, 0xff), hello[9:]...),
		"a hello in records of a byte": inRecords(hello, 1)[:handover.MaxHead/2],
		"a hello that is too long":     inRecords(padded(hello, 16_000), 8_000),
		"no protocol":                  helloOf(t, relays()),
		"an unknown protocol":          helloOf(t, relays("h2", "http/1.1")),
		"a relay's and an unknown one": helloOf(t, relays(identity.ProtocolRelay, "h2")),
		"the protocol of carriers":     helloOf(t, relays(identity.ProtocolTunnel)),
		"one that only begins alike":   helloOf(t, relays(identity.ProtocolRelay+"0")),
	}
	answers := func() map[string]string {
		all := make(map[string]string)
		for what, b := range openings {
			c := r.raw().(*net.TCPConn)
			c.Write(b)
			c.CloseWrite()
			all[what] = shape(wantClosed(t, c))
		}
		return all
	}
	without := answers()
	if a, b := without["no protocol"], without["an unknown protocol"]; !strings.HasPrefix(a, "22 ") || !strings.HasPrefix(b, "21 0278") {
		t.Errorf("no protocol is answered with %q, an unknown one with %q: want a handshake, and an alert", a, b)
	}
	k := r.taker(t)
	for what, got := range answers() {
		if got != without[what] {
			t.Errorf("%s: answered with %q, without a relay with %q", what, got, without[what])
		}
	}
	for _, protocols := range [][]string{{identity.ProtocolControl}, {identity.ProtocolRelay, identity.ProtocolControl}, {identity.ProtocolEnrol}, {identity.ProtocolAdmin}} {
		want := protocols[len(protocols)-1]
		cfg := r.credentials["witness"].ClientTLS(want, identity.Expect(identity.Server, ""))
		cfg.NextProtos = protocols
		c := tls.Client(r.raw(), cfg)
		c.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err != nil || c.ConnectionState().NegotiatedProtocol != want {
			t.Errorf("a client of %q: %v", protocols, err)
		}
	}
	r.wantServing()
	k.wantNothing()
	r.handOver("")
	client := tls.Client(r.raw(), relays(identity.ProtocolRelay))
	if err := client.Handshake(); err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("a relay's client where nothing is handed over any more: %v", err)
	}
	k.wantNothing()
}

// TestRelayThatIsAway: its clients are closed without a word, it is logged once, others are served, and when it is back it
// gets what comes.
func TestRelayThatIsAway(t *testing.T) {
	r := newRig(t, "witness")
	page := r.measured()
	k := r.taker(t)
	k.Close()
	const clients = 20
	for range clients {
		c := r.raw()
		c.Write(helloOf(t, relays(identity.ProtocolRelay)))
		c.SetReadDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("the client is told %q, %v; want a clean end", b, err)
		}
	}
	r.wantServing()
	lines := r.log.all("connection for the relay on this machine closed")
	if len(lines) != 1 || !strings.Contains(lines[0], k.path+": connect: no such file or directory") {
		t.Errorf("it is logged %d times, want once: %q", len(lines), lines)
	}
	metricstest.Read(t, metricstest.Get(t, page)).Want(t, map[string]float64{
		"netport_server_connections_handed_over_total":                0,
		`netport_server_connections_refused_total{reason="no_relay"}`: clients,
	})
	k = r.taker(t)
	r.raw().Write(helloOf(t, relays(identity.ProtocolRelay)))
	k.take()
}

// TestSlowOpeningIsCut by the deadline of every greeting, though it may be for a relay.
func TestSlowOpeningIsCut(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the deadline of 10 s")
	}
	r := newRig(t, "witness")
	k := r.taker(t)
	hello := helloOf(t, relays(identity.ProtocolRelay))
	begin := time.Now()
	idle, begun, slow := r.raw(), r.raw(), r.raw()
	begun.Write([]byte(leg.Magic[:4]))
	go func() { // a byte each 100 ms
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range hello {
			if _, err := slow.Write(hello[i : i+1]); err != nil {
				return
			}
			<-tick.C
		}
	}()
	for _, c := range []net.Conn{idle, begun, slow} {
		c.SetReadDeadline(begin.Add(control.HandshakeTimeout + 5*time.Second))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it is not closed")
		}
	}
	if took := time.Since(begin); took < control.HandshakeTimeout-time.Second || took > control.HandshakeTimeout+3*time.Second {
		t.Errorf("closed after %v, the deadline is %v", took, control.HandshakeTimeout)
	}
	k.wantNothing()
}

// TestNothingIsKeptOfOthers: what a peer began with is let go when it is known that it is not for a relay.
func TestNothingIsKeptOfOthers(t *testing.T) {
	o := &opening{head: make([]byte, 1500)}
	own := relays(identity.ProtocolControl)
	own.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
	cfg, err := o.config(own).GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{identity.ProtocolControl}})
	if cfg != own || err != nil || o.head != nil || !o.known || o.relay {
		t.Errorf("%p, %v, %+v; want %p", cfg, err, o, own)
	}
}
