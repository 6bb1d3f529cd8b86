package wire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

func TestReaderIsStickyAfterAShortRead(t *testing.T) {
	r := NewReader([]byte{1, 2, 3})
	if got := r.Uint16(); got != 0x0102 {
		t.Errorf("first field: %#x, want 0x0102", got)
	}
	if got := r.Uint32(); got != 0 {
		t.Errorf("a field that is cut: %#x, want 0", got)
	}
	// One byte is left, yet nothing is read any more: it belongs to the
	// field that was cut.
	if got := r.Uint8(); got != 0 {
		t.Errorf("a field after the one that is cut: %#x, want 0", got)
	}
	if r.Done() == nil {
		t.Error("a short read was not reported")
	}
}

func TestReaderReportsWhatIsLeftOver(t *testing.T) {
	r := NewReader([]byte{1, 2})
	r.Uint8()
	if r.Done() == nil {
		t.Error("a byte left over was not reported")
	}
	r.Uint8()
	if err := r.Done(); err != nil {
		t.Errorf("all was read: %v", err)
	}
}

func TestReaderRejectsWhatIsNotTheOneEncoding(t *testing.T) {
	for _, test := range []struct {
		name string
		body string
		read func(r *Reader)
		ok   bool
	}{
		{"bool 0", "00", func(r *Reader) { r.Bool() }, true},
		{"bool 1", "01", func(r *Reader) { r.Bool() }, true},
		{"bool 2", "02", func(r *Reader) { r.Bool() }, false},
		{"no address", "00", func(r *Reader) { r.Addr() }, true},
		{"IPv4", "04 c0000201", func(r *Reader) { r.Addr() }, true},
		{"IPv6", "10 20010db8000000000000000000000001", func(r *Reader) { r.Addr() }, true},
		{"IPv4 written as IPv6", "10 00000000000000000000ffffc0000201", func(r *Reader) { r.Addr() }, false},
		{"address of 5 bytes", "05 0102030405", func(r *Reader) { r.Addr() }, false},
		{"address that is cut", "10 20010db8", func(r *Reader) { r.Addr() }, false},
		{"port 0", "04 c0000201 0000", func(r *Reader) { r.AddrPort() }, false},
		{"port without address", "00 0050", func(r *Reader) { r.AddrPort() }, false},
		{"blob at its limit", "0002 0102", func(r *Reader) { r.Blob(2) }, true},
		{"blob above its limit", "0002 0102", func(r *Reader) { r.Blob(1) }, false},
		{"blob longer than the message", "ffff 0102", func(r *Reader) { r.Blob(1 << 20) }, false},
		{"text that is not UTF-8", "0001 ff", func(r *Reader) { r.Text(8) }, false},
		{"count of what is there", "0002 01020304", func(r *Reader) { r.Count(9, 2); r.Rest() }, true},
		{"count above its limit", "0002 01020304", func(r *Reader) { r.Count(1, 2); r.Rest() }, false},
		{"count of more than is there", "0003 01020304", func(r *Reader) { r.Count(9, 2); r.Rest() }, false},
		{"negative length", "01", func(r *Reader) { r.Bytes(-1) }, false},
	} {
		r := NewReader(unhexBody(t, test.body))
		test.read(&r)
		if err := r.Done(); (err == nil) != test.ok {
			t.Errorf("%s: %v, want accepted: %v", test.name, err, test.ok)
		}
	}
}

func TestReaderCannotReachBehindItsBytes(t *testing.T) {
	b := []byte{1, 2, 3, 4}
	r := NewReader(b)
	first := r.Bytes(2)
	if got := append(first, 9); !bytes.Equal(b, []byte{1, 2, 3, 4}) {
		t.Errorf("appending to what was read gave %v and changed the message to %v", got, b)
	}
}

func TestTextIsCutOnARuneAndMadeValid(t *testing.T) {
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"whole", 5, "whole"},
		{"longer", 4, "long"},
		{"caf\u00e9", 4, "caf"},
		{"a\xffb", 9, "a\ufffdb"},
		{strings.Repeat("\u20ac", 3), 7, "\u20ac\u20ac"},
	} {
		r := NewReader(AppendText(nil, test.text, test.limit))
		if got := r.Text(test.limit); got != test.want || r.Done() != nil {
			t.Errorf("%q cut to %d bytes: %q, want %q", test.text, test.limit, got, test.want)
		}
	}
}

func TestAddressesLoseMappingAndZone(t *testing.T) {
	for from, want := range map[string]string{
		"::ffff:192.0.2.1": "192.0.2.1",
		"fe80::1%eth0":     "fe80::1",
		"2001:db8::1":      "2001:db8::1",
	} {
		r := NewReader(AppendAddr(nil, netip.MustParseAddr(from)))
		if got := r.Addr(); got != netip.MustParseAddr(want) || r.Done() != nil {
			t.Errorf("%s read back as %v, want %s", from, got, want)
		}
	}
}

func TestBlobOfMoreThanItsLengthCanSayPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a blob of 65536 bytes was written")
		}
	}()
	AppendBlob(nil, make([]byte, 65536))
}
