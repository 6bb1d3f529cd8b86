package main

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// query packs a DNS query with one question per name.
func query(t *testing.T, opcode dnsmessage.OpCode, typ dnsmessage.Type, names ...string) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, OpCode: opcode, RecursionDesired: true}}
	for _, name := range names {
		m.Questions = append(m.Questions, dnsmessage.Question{
			Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET,
		})
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnswer(t *testing.T) {
	const known = "plc.factory.example."
	tests := []struct {
		name  string
		query []byte
		rcode dnsmessage.RCode
		addr  string // of the one answer, if there must be one
	}{
		{"known host", query(t, 0, dnsmessage.TypeA, known), dnsmessage.RCodeSuccess, "10.0.0.5"},
		{"mixed case", query(t, 0, dnsmessage.TypeA, "PLC.factory.Example."), dnsmessage.RCodeSuccess, "10.0.0.5"},
		{"no IPv6 address", query(t, 0, dnsmessage.TypeAAAA, known), dnsmessage.RCodeSuccess, ""},
		{"unknown host", query(t, 0, dnsmessage.TypeA, "nobody.example."), dnsmessage.RCodeNameError, ""},
		{"no question", query(t, 0, dnsmessage.TypeA), dnsmessage.RCodeFormatError, ""},
		{"two questions", query(t, 0, dnsmessage.TypeA, known, known), dnsmessage.RCodeFormatError, ""},
		{"not a lookup", query(t, 4, dnsmessage.TypeA, known), dnsmessage.RCodeNotImplemented, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, err := answer(test.query)
			if err != nil {
				t.Fatal(err)
			}
			var reply dnsmessage.Message
			if err := reply.Unpack(b); err != nil {
				t.Fatal(err)
			}
			if reply.ID != 4711 || !reply.Response || reply.RCode != test.rcode {
				t.Errorf("got header %v, want a reply to 4711 with %v", reply.GoString(), test.rcode)
			}
			var addr string
			if len(reply.Answers) == 1 {
				addr = netip.AddrFrom4(reply.Answers[0].Body.(*dnsmessage.AResource).A).String()
			}
			if addr != test.addr {
				t.Errorf("got address %q, want %q", addr, test.addr)
			}
		})
	}
}

func TestWhatIsNoQueryGetsNoAnswer(t *testing.T) {
	reply, err := answer(query(t, 0, dnsmessage.TypeA, "plc.factory.example."))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":   nil,
		"truncated": query(t, 0, dnsmessage.TypeA, "plc.factory.example.")[:20],
		"a reply":   reply,
	} {
		if got, err := answer(b); err == nil {
			t.Errorf("%s: got answer %x, want an error", name, got)
		}
	}
}

func TestLookupOverUDP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveNames(ctx, conn) }()

	got, _, err := lookup(t.Context(), conn.LocalAddr().String(), "camera.factory.example")
	if want := netip.MustParseAddr("10.0.0.17"); err != nil || got != want {
		t.Errorf("got %v and error %v, want %v", got, err, want)
	}
	if got, _, err := lookup(t.Context(), conn.LocalAddr().String(), "nobody.example"); err == nil {
		t.Errorf("unknown host: got %v, want an error", got)
	}

	cancel()
	if err := <-served; err != nil {
		t.Errorf("serveNames after its context ended: got %v, want nil", err)
	}
}
