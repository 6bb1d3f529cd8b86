package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// wantServing checks that the server still does its work, and that what it
// logged are short lines without control characters.
func (r *rig) wantServing() {
	r.t.Helper()
	p := r.portal("witness")
	r.grants(p, 0)
	p.leave()
	for _, line := range r.log.all("") {
		text := strings.TrimSuffix(line, "\n")
		if len(line) > 1024 || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || 0x202a <= c && c <= 0x202e }) {
			r.t.Errorf("log line of %d bytes, or not a plain one: %q", len(line), line)
		}
	}
}

// wantClosed reads until the server has closed the connection.
func wantClosed(t *testing.T, c net.Conn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server does not close the connection")
	}
	return b
}

func message(t wire.Type, length uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(t))
	return append(binary.BigEndian.AppendUint32(b, length), body...)
}

func whole(t wire.Type, body ...byte) []byte { return message(t, uint32(len(body)), body...) }

var hello = wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: "x"})

// openBody is an OpenSession, field by field.
func openBody(fields ...[]byte) []byte {
	return whole(wire.TypeOpenSession, slices.Concat(fields...)...)
}

// B3-B23: each closes its own connection, with a word where one was due.
func TestBrokenMessages(t *testing.T) {
	r := newRig(t, "witness", "ann", "plant", "relay-1")
	r.apply(web)
	request, noPeer, grantID, none := []byte{0, 0, 0, 1}, []byte{0, 1, 'x'}, make([]byte, 16), []byte{0, 0}
	name := func(s string) []byte { return wire.AppendBlob(nil, []byte(s)) }
	for _, c := range []struct {
		what string
		who  string
		b    []byte
		want wire.Reason
	}{
		{"length 0", "ann", message(wire.TypeHello, 0), wire.ReasonProtocol},
		{"length above the limit", "ann", message(wire.TypeHello, wire.MaxControl+1), wire.ReasonProtocol},
		{"length 0x7fffffff", "ann", message(wire.TypeHello, 0x7fffffff), wire.ReasonProtocol},
		{"length 0xffffffff", "ann", message(wire.TypeHello, 0xffffffff), wire.ReasonProtocol},
		{"length 0 later", "ann", append(slices.Clone(hello), message(wire.TypePing, 0)...), wire.ReasonProtocol},
		{"length 0xffffffff later", "ann", append(slices.Clone(hello), message(wire.TypePing, 0xffffffff)...), wire.ReasonProtocol},
		{"cut short", "ann", append(slices.Clone(hello), message(wire.TypeOpenSession, 1000, make([]byte, 999)...)...), wire.ReasonNone},
		{"a request before the hello", "ann", openBody(request, noPeer, grantID, []byte{1}, none), wire.ReasonProtocol},
		{"an unknown type before the hello", "ann", whole(9999, 1), wire.ReasonProtocol},
		{"hello of version 0", "ann", whole(wire.TypeHello, 0, 0, 0, 0), wire.ReasonVersion},
		{"hello with bytes left over", "ann", whole(wire.TypeHello, 0, 1, 0, 0, 7), wire.ReasonProtocol},
		{"hello with 65 bytes of software", "ann", whole(wire.TypeHello, append([]byte{0, 1, 0, 65}, make([]byte, 65)...)...), wire.ReasonProtocol},
		{"hello twice", "ann", append(slices.Clone(hello), hello...), wire.ReasonProtocol},
		{"a message of the server", "ann", append(slices.Clone(hello), wire.AppendMessage(nil, wire.GrantsComplete{Version: 1})...), wire.ReasonProtocol},
		{"a welcome", "ann", append(slices.Clone(hello), wire.AppendMessage(nil, wire.Welcome{Version: wire.ControlVersion})...), wire.ReasonProtocol},
		{"a message of relays from a portal", "ann", append(slices.Clone(hello), wire.AppendMessage(nil, wire.SessionReady{ID: wire.SessionID{1}, TCP: 1})...), wire.ReasonProtocol},
		{"a message of portals from a relay", "relay-1", append(slices.Clone(hello), wire.AppendMessage(nil, wire.OpenSession{Request: 1, Peer: "ann"})...), wire.ReasonProtocol},
		{"hello twice from a relay", "relay-1", append(slices.Clone(hello), hello...), wire.ReasonProtocol},
		{"request 0", "ann", append(slices.Clone(hello), openBody(make([]byte, 4), noPeer, grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name beyond the message", "ann", append(slices.Clone(hello), openBody(request, []byte{0xff, 0xff, 'x'}, grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name of 0 bytes", "ann", append(slices.Clone(hello), openBody(request, none, grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name of 64 bytes", "ann", append(slices.Clone(hello), openBody(request, name(strings.Repeat("a", 64)), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name of 255 bytes", "ann", append(slices.Clone(hello), openBody(request, name(strings.Repeat("a", 255)), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name that is no UTF-8", "ann", append(slices.Clone(hello), openBody(request, name("a\xff"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name in overlong UTF-8", "ann", append(slices.Clone(hello), openBody(request, name("\xc0\x80"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"address of 3 bytes", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0, 1, 3, 1, 2, 3, 0, 80, 0, 0})...), wire.ReasonProtocol},
		{"address of 255 bytes", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0, 1, 255, 1, 2, 3, 4, 0, 80})...), wire.ReasonProtocol},
		{"IPv4-mapped address", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0, 1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0, 80})...), wire.ReasonProtocol},
		{"port 0", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0, 1, 4, 10, 0, 0, 1, 0, 0})...), wire.ReasonProtocol},
		{"bytes left over", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1}, none, []byte{0})...), wire.ReasonProtocol},
		{"a count of 65535", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0xff, 0xff})...), wire.ReasonProtocol},
		{"65535 empty elements", "ann", append(slices.Clone(hello), openBody(request, noPeer, grantID, []byte{1, 0xff, 0xff}, make([]byte, 16000))...), wire.ReasonProtocol},
		{"name with a line break", "ann", append(slices.Clone(hello), openBody(request, name("x\nlevel=info msg=\"accepted\" \x1b[2J"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name with NUL", "ann", append(slices.Clone(hello), openBody(request, name("a\x00"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name that writes to the left", "ann", append(slices.Clone(hello), openBody(request, name("\u202eevil"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"path as name", "ann", append(slices.Clone(hello), openBody(request, name("../x"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name of all", "ann", append(slices.Clone(hello), openBody(request, name("*"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name in capitals", "ann", append(slices.Clone(hello), openBody(request, name("PLANT"), grantID, []byte{1}, none)...), wire.ReasonProtocol},
		{"name with a final dot", "ann", append(slices.Clone(hello), openBody(request, name("plant."), grantID, []byte{1}, none)...), wire.ReasonProtocol},
	} {
		conn := r.rawTLS(c.who)
		conn.Write(c.b)
		conn.CloseWrite()
		said := wantClosed(t, conn)
		if got := goodbye(said); got != c.want {
			t.Errorf("%s: the server said %v, want %v", c.what, got, c.want)
		}
		// The next one of this name would replace it if it came sooner.
		r.wantNobody()
	}
	r.wantServing()
}

// goodbye finds the Goodbye at the end of what the server said.
func goodbye(b []byte) wire.Reason {
	for len(b) >= wire.ControlHeaderLen {
		t, n, err := wire.ParseControlHeader(b)
		if err != nil || len(b) < wire.ControlHeaderLen+n {
			break
		}
		body := b[wire.ControlHeaderLen : wire.ControlHeaderLen+n]
		if bye, err := wire.ParseGoodbye(body); t == wire.TypeGoodbye && err == nil {
			return bye.Reason
		}
		b = b[wire.ControlHeaderLen+n:]
	}
	return wire.ReasonNone
}

// B7, B8, B21: what is odd and still in order.
func TestOddMessagesThatAreInOrder(t *testing.T) {
	r := newRig(t, "witness", "ann", "plant")
	r.apply(web)
	c := r.rawTLS("ann")
	b := slices.Clone(hello)
	b = append(b, whole(9999, 1, 2, 3)...)                          // of a newer version
	b = append(b, whole(9998, make([]byte, wire.MaxControl)...)...) // as long as one may be
	for i, peer := range []string{"x", "0", "nobody", strings.Repeat("a", 63)} {
		b = append(b, wire.AppendMessage(nil, wire.OpenSession{Request: uint32(i + 1), Peer: peer})...)
	}
	b = append(b, wire.AppendMessage(nil, wire.SessionDone{})...)
	b = append(b, wire.AppendMessage(nil, wire.SessionDone{Session: wire.SessionID{1}, Reason: 60000})...)
	b = append(b, wire.AppendMessage(nil, wire.Ping{Token: 42})...)
	for i := 0; i < len(b); i += 100 { // many records, cut anywhere
		if _, err := c.Write(b[i:min(i+100, len(b))]); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for {
		kind, body := readMessage(t, c)
		if kind == wire.TypeRefused {
			m, err := wire.ParseRefused(body)
			if err != nil || m.Reason != wire.ReasonNotGranted || m.Text != "" {
				t.Errorf("refused with %+v, %v", m, err)
			}
			refused++
		}
		if kind == wire.TypePong {
			break
		}
	}
	if refused != 4 {
		t.Errorf("%d requests refused, want 4", refused)
	}
	r.wantServing()
}

// T18: what a portal says of itself stays one value in one line.
func TestPortalCannotWriteTheLog(t *testing.T) {
	r := newRig(t, "witness", "ann")
	c := r.rawTLS("ann")
	c.Write(wire.AppendMessage(nil, wire.Hello{Version: wire.ControlVersion, Software: "x\nlevel=INFO msg=\"accepted\"\x1b[2J\u202e"}))
	readMessage(t, c)
	line := r.log.wait(t, "portal connected")
	if !strings.Contains(line, `software="x\nlevel=INFO msg=\"accepted\"\x1b[2J`) {
		t.Errorf("logged as %q", line)
	}
	r.wantServing()
}

func readMessage(t *testing.T, c net.Conn) (wire.Type, []byte) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	var header [wire.ControlHeaderLen]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		t.Fatal(err)
	}
	kind, n, err := wire.ParseControlHeader(header[:])
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	return kind, body
}

// B10: the refusal of a version names both. (There is no lower version yet than
// ours, and a higher one is welcomed with ours.)
func TestNewerVersionIsWelcomedWithOurs(t *testing.T) {
	r := newRig(t, "ann")
	c := r.rawTLS("ann")
	c.Write(wire.AppendMessage(nil, wire.Hello{Version: 0xffff, Software: "of the future"}))
	kind, body := readMessage(t, c)
	if m, err := wire.ParseWelcome(body); kind != wire.TypeWelcome || err != nil || m.Version != wire.ControlVersion {
		t.Errorf("answered with type %d, %+v, %v", kind, m, err)
	}
}

// B25, B26: a flood ends its own connection and nothing else.
func TestFloods(t *testing.T) {
	r := newRig(t, "witness", "ann", "plant")
	r.apply(web)
	for what, m := range map[string]wire.Message{"pings": wire.Ping{Token: 1}, "requests": wire.OpenSession{Request: 1, Peer: "plant"}} {
		c := r.rawTLS("ann")
		c.Write(hello)
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}()
		flood := bytes.Repeat(wire.AppendMessage(nil, m), 100)
		sent := 0
		for c.SetWriteDeadline(time.Now().Add(patience)); sent < 100_000; sent += 100 {
			if _, err := c.Write(flood); err != nil {
				break
			}
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("a flood of %d %s does not end the connection", sent, what)
		}
	}
	r.log.wait(t, "more than 200 messages a second")
	r.wantServing()
}

// T7: what is not allowed and what does not exist look and last the same: the tries take
// turns, so that what the machine does beside them falls on both.
func TestRefusalsAreAlikeInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("measures times")
	}
	tries := 200 // of each kind, by each of two portals: more at once is a flood
	if *full {
		tries = 500
	}
	thieves := []string{"thief", "thug"}
	r := newRig(t, append(thieves, "ann", "plant")...)
	r.apply(web)
	plant := r.portal("plant")
	grants, _ := r.grants(plant, 1)
	var answers [2][]byte
	var times [2][]time.Duration
	for _, name := range thieves {
		c := r.rawTLS(name)
		c.Write(hello)
		for range tries {
			for i, m := range []wire.OpenSession{{Request: 1, Peer: "plant", Grant: grants["web"].ID()}, {Request: 1, Peer: "nobody", Grant: wire.GrantID{1}}} {
				b := wire.AppendMessage(nil, m)
				begin := time.Now()
				c.Write(b)
				for {
					kind, body := readMessage(t, c)
					if kind == wire.TypeRefused {
						answers[i] = body
						break
					}
				}
				times[i] = append(times[i], time.Since(begin))
			}
		}
	}
	if !bytes.Equal(answers[0], answers[1]) {
		t.Errorf("the answers are %x and %x", answers[0], answers[1])
	}
	var medians [2]time.Duration
	for i := range times {
		slices.Sort(times[i])
		medians[i] = times[i][len(times[i])/2]
	}
	t.Logf("medians of %d tries: not allowed %v, unknown %v", len(times[0]), medians[0], medians[1])
	if d := (medians[0] - medians[1]).Abs(); d > time.Millisecond {
		t.Errorf("the medians differ by %v", d)
	}
}
