package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// frameParsers parses the body of each frame type.
var frameParsers = map[FrameType]func([]byte) (Frame, error){
	FrameHello:      anyFrame(ParseTunnelHello),
	FramePing:       anyFrame(ParseTunnelPing),
	FramePong:       anyFrame(ParseTunnelPong),
	FrameOpen:       anyFrame(ParseOpen),
	FrameData:       anyFrame(ParseData),
	FrameAck:        anyFrame(ParseAck),
	FrameFin:        anyFrame(ParseFin),
	FrameReset:      anyFrame(ParseReset),
	FrameDatagram:   anyFrame(ParseDatagram),
	FrameCarrier:    anyFrame(ParseAddCarrier),
	FrameClose:      anyFrame(ParseTunnelClose),
	FrameResume:     anyFrame(ParseResume),
	FramePad:        anyFrame(ParsePad),
	FrameCandidates: anyFrame(ParseCandidates),
}

func anyFrame[F Frame](parse func([]byte) (F, error)) func([]byte) (Frame, error) {
	return func(b []byte) (Frame, error) {
		f, err := parse(b)
		return f, err
	}
}

// frameGoldens holds frames of every type, and their bodies in hexadecimal.
var frameGoldens = []struct {
	frame Frame
	body  string
}{
	{
		TunnelHello{Version: 0x0102, Session: testSession, Connection: 0x0304, Tunnel: TunnelID(testSession), Proof: testSecret0},
		"0102" + hexSession + "0304" + hexSession + hexSecret0,
	},
	{TunnelPing{Token: 0x0102030405060708}, "0102030405060708"},
	{TunnelPong{Token: 0x1112131415161718}, "1112131415161718"},
	{
		Open{Kind: OpenStream, Grant: testGrant, Signed: []byte("signed"), Limit: 0x40000, Source: netip.MustParseAddrPort("192.0.2.7:4660"), Data: []byte{}},
		"01" + // kind
			hexGrant +
			"0006 7369676e6564" + // signed
			"0000000000040000" + // limit
			"04 c0000207 1234", // source
	},
	{
		Open{Kind: OpenFlow, Grant: testGrant, Signed: []byte{}, Source: netip.MustParseAddrPort("[2001:db8::9]:65535"), Data: []byte("first")},
		"02" +
			hexGrant +
			"0000" +
			"0000000000000000" +
			"10 20010db8000000000000000000000009 ffff" +
			"6669727374", // data
	},
	{
		Open{Kind: OpenProbe, Grant: testGrant, Signed: []byte{}, Data: []byte{}},
		"03" + hexGrant + "0000" + "0000000000000000" + "00 0000",
	},
	{
		Data{Epoch: 0x01020304, Offset: 0x1112131415161718, Data: []byte("bytes")},
		"01020304" + "1112131415161718" + "6279746573",
	},
	{
		Ack{Epoch: 0x01020304, Acked: 0x1112131415161718, Limit: 0x2122232425262728},
		"01020304" + "1112131415161718" + "2122232425262728",
	},
	{Fin{Epoch: 0x01020304, Offset: 0x1112131415161718}, "01020304" + "1112131415161718"},
	{Reset{Reason: ReasonTargetRefused, Text: "no"}, "0030" + "0002 6e6f"},
	{Datagram{Data: []byte("whole")}, "77686f6c65"},
	{AddCarrier{Connection: 0x0102, Kind: CarrierQUIC}, "010202"},
	{Resume{Epoch: 0x01020304, Received: 0x1112131415161718}, "01020304" + "1112131415161718"},
	{Pad{Length: 3}, "000000"},
	{TunnelClose{Reason: ReasonShutdown, Text: "bye"}, "0001" + "0003 627965"},
	{
		Candidates{Number: 0x01020304, Machine: [16]byte{0xaa, 15: 0xbb}, List: []Candidate{
			{CandidateUDP, OriginHost, netip.MustParseAddrPort("192.0.2.7:4660")},
			{CandidateTCP, OriginMapped, netip.MustParseAddrPort("[2001:db8::9]:65535")},
		}},
		"01020304" + // number
			"aa0000000000000000000000000000bb" + // machine
			"0002" + // candidates
			"11 04 c0000207 1234" +
			"32 10 20010db8000000000000000000000009 ffff",
	},
	{Candidates{Number: 1}, "00000001" + strings.Repeat("00", 16) + "0000"},
}

// openEnded are the types whose last field is the rest of the body: they have
// no length of their own to exceed or to fall short of.
var openEnded = map[FrameType]bool{FrameOpen: true, FrameData: true, FrameDatagram: true, FramePad: true}

func TestEveryFrameTypeHasAGolden(t *testing.T) {
	got := make(map[FrameType]bool)
	for _, g := range frameGoldens {
		got[g.frame.FrameType()] = true
	}
	for typ := FrameHello; typ <= FrameCandidates; typ++ {
		if !got[typ] {
			t.Errorf("%v has no golden", typ)
		}
	}
}

func TestFramesAreTheirGoldenBytes(t *testing.T) {
	for _, g := range frameGoldens {
		typ := g.frame.FrameType()
		want := unhexBody(t, g.body)
		prefix := []byte("before")
		got := g.frame.AppendTo(bytes.Clone(prefix))
		if !bytes.Equal(got, append(prefix, want...)) {
			t.Errorf("%v after a prefix: %x, want %x", typ, got, want)
		}
		parsed, err := frameParsers[typ](want)
		if err != nil {
			t.Errorf("parse %v: %v", typ, err)
		}
		if diff := cmp.Diff(g.frame, parsed, compareMessages()); diff != "" {
			t.Errorf("%v parsed (-want +got):\n%s", typ, diff)
		}
		whole := AppendFrame(prefix, 0x01020304, g.frame)[len(prefix):]
		h, err := ParseFrameHeader(whole)
		if wantHeader := (FrameHeader{Type: typ, Length: len(want), Stream: 0x01020304}); err != nil || h != wantHeader {
			t.Errorf("header of %v: %v, %v; want %v", typ, h, err, wantHeader)
		}
		if !bytes.Equal(whole[FrameHeaderLen:], want) {
			t.Errorf("body of a whole %v: %x, want %x", typ, whole[FrameHeaderLen:], want)
		}
	}
}

func TestFrameHeaderIsItsGoldenBytes(t *testing.T) {
	var got [FrameHeaderLen]byte
	FrameHeader{Type: FrameData, Length: 0x010002, Stream: 0x01020304}.PutTo(got[:])
	if want := unhexBody(t, "05 010002 01020304"); !bytes.Equal(got[:], want) {
		t.Errorf("header: %x, want %x", got, want)
	}
}

// A DATA header written in front of the bytes is the frame that Data makes.
func TestDataHeaderInPlaceIsADataFrame(t *testing.T) {
	data := []byte("where they are")
	got := append(make([]byte, DataOverhead), data...)
	PutDataHeader(got, 7, 3, 1<<40, len(data))
	want := AppendFrame(nil, 7, Data{Epoch: 3, Offset: 1 << 40, Data: data})
	if !bytes.Equal(got, want) {
		t.Errorf("in place: %x, appended: %x", got, want)
	}
}

func TestCutOrLongFramesAreRefused(t *testing.T) {
	for _, g := range frameGoldens {
		typ := g.frame.FrameType()
		body := unhexBody(t, g.body)
		fixed := len(body)
		switch f := g.frame.(type) {
		case Open:
			fixed -= len(f.Data)
		case Data:
			fixed -= len(f.Data) - 1
		case Datagram, Pad:
			fixed = 0
		}
		for n := range fixed {
			if f, err := frameParsers[typ](body[:n]); err == nil {
				t.Errorf("%v cut to %d of %d bytes was accepted as %+v", typ, n, len(body), f)
			}
		}
		if !openEnded[typ] {
			if f, err := frameParsers[typ](append(body, 0)); err == nil {
				t.Errorf("%v with a byte too many was accepted as %+v", typ, f)
			}
		}
	}
}

func TestFrameHeaderBoundsTheLength(t *testing.T) {
	for _, test := range []struct {
		length uint32
		ok     bool
	}{{0, true}, {MaxFrame, true}, {MaxFrame + 1, false}, {0x7fffff, false}, {0xffffff, false}} {
		var b [FrameHeaderLen]byte
		binary.BigEndian.PutUint32(b[:], uint32(FrameData)<<24|test.length)
		_, err := ParseFrameHeader(b[:])
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("length %#x: %v, want accepted: %v", test.length, err, test.ok)
		}
	}
}

func TestFrameFieldsKeepTheirLimits(t *testing.T) {
	big := func(n int) []byte { return make([]byte, n) }
	for _, test := range []struct {
		name  string
		frame Frame
		ok    bool
	}{
		{"DATA of no bytes", Data{Epoch: 1}, false},
		{"DATA of the most bytes", Data{Epoch: 1, Data: big(MaxData)}, true},
		{"DATA of one more", Data{Epoch: 1, Data: big(MaxData + 1)}, false},
		{"DATA that ends at the last offset", Data{Offset: MaxOffset - 1, Data: big(1)}, true},
		{"DATA beyond the last offset", Data{Offset: MaxOffset, Data: big(1)}, false},
		{"DATA whose end overflows", Data{Offset: 1<<64 - 1, Data: big(1)}, false},
		{"ACK above its limit", Ack{Acked: 2, Limit: 1}, false},
		{"ACK with the highest limit", Ack{Acked: 0, Limit: MaxOffset}, true},
		{"ACK with a limit above", Ack{Acked: 0, Limit: MaxOffset + 1}, false},
		{"ACK with a limit that overflows", Ack{Acked: 0, Limit: 1<<64 - 1}, false},
		{"FIN beyond the last offset", Fin{Offset: MaxOffset + 1}, false},
		{"DATAGRAM of no bytes", Datagram{}, true},
		{"DATAGRAM of the most bytes", Datagram{Data: big(MaxDatagram)}, true},
		{"DATAGRAM of one more", Datagram{Data: big(MaxDatagram + 1)}, false},
		{"OPEN of kind 0", Open{Kind: 0}, false},
		{"OPEN of an unknown kind", Open{Kind: OpenProbe + 1}, false},
		{"OPEN with the longest grant", Open{Kind: OpenStream, Signed: big(MaxGrant)}, true},
		{"OPEN with a longer grant", Open{Kind: OpenStream, Signed: big(MaxGrant + 1)}, false},
		{"OPEN of a stream with data", Open{Kind: OpenStream, Data: big(1)}, false},
		{"OPEN of a probe with data", Open{Kind: OpenProbe, Data: big(1)}, false},
		{"OPEN of a probe with a limit", Open{Kind: OpenProbe, Limit: 1}, false},
		{"OPEN of a flow with a limit", Open{Kind: OpenFlow, Limit: 1}, false},
		{"OPEN of a flow with the longest datagram", Open{Kind: OpenFlow, Data: big(MaxDatagram)}, true},
		{"OPEN of a flow with a longer one", Open{Kind: OpenFlow, Data: big(MaxDatagram + 1)}, false},
		{"OPEN with a limit beyond the last offset", Open{Kind: OpenStream, Limit: MaxOffset + 1}, false},
		{"OPEN with a port and no address", Open{Kind: OpenStream, Source: netip.AddrPortFrom(netip.Addr{}, 80)}, false},
	} {
		_, err := frameParsers[test.frame.FrameType()](test.frame.AppendTo(nil))
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want accepted: %v", test.name, err, test.ok)
		}
	}
}

func TestCandidatesKeepTheirLimits(t *testing.T) {
	const candidate = "11 04 01020304 0050"
	for _, test := range []struct {
		name, list string
		ok         bool
	}{
		{"none", "0000", true},
		{"16", "0010" + strings.Repeat(candidate, 16), true},
		{"17", "0011" + strings.Repeat(candidate, 17), false},
		{"65535 announced, 1 there", "ffff" + candidate, false},
		{"16 announced, 1 there", "0010" + candidate, false},
		{"an empty address", "0001 11 00 0000 00000000", false},
		{"port 0", "0001 11 04 01020304 0000", false},
		{"port 65535", "0001 11 04 01020304 ffff", true},
		{"an address of 3 bytes", "0001 11 03 010203 0050 00", false},
		{"an address of 255 bytes", "0001 11 ff" + strings.Repeat("01", 257), false},
		{"IPv4 in 16 bytes", "0001 11 10 00000000000000000000ffff01020304 0050", false},
		{"IPv6 in 4 bytes", "0001 11 04 20010db8 00000000 0050", false},
		{"no transport", "0001 10 04 01020304 0050", false},
		{"no origin", "0001 01 04 01020304 0050", false},
		{"a transport and an origin that nobody knows yet", "0001 ff 04 01020304 0050", true},
	} {
		m, err := ParseCandidates(unhexBody(t, "00000001"+strings.Repeat("00", 16)+test.list))
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v, want accepted: %v", test.name, m, err, test.ok)
		}
	}
	var many Candidates
	for i := range 3 * MaxCandidates {
		many.List = append(many.List, Candidate{CandidateUDP, OriginHost, netip.AddrPortFrom(netip.MustParseAddr("::ffff:192.0.2.1"), uint16(i+1))})
	}
	got, err := ParseCandidates(many.AppendTo(nil))
	if err != nil || len(got.List) != MaxCandidates || got.List[0].Addr != netip.MustParseAddrPort("192.0.2.1:1") {
		t.Errorf("too many candidates arrive as %v, %v; want the first %d, unmapped", got, err, MaxCandidates)
	}
}

// The longest frame that a sender can make is one that a receiver takes.
func TestLongestFramesFitTheirHeader(t *testing.T) {
	for _, f := range []Frame{
		Open{Kind: OpenFlow, Signed: make([]byte, MaxGrant), Source: netip.MustParseAddrPort("[2001:db8::9]:65535"), Data: make([]byte, MaxDatagram)},
		Data{Data: make([]byte, MaxData)},
		Datagram{Data: make([]byte, MaxDatagram)},
		Reset{Text: strings.Repeat("x", 2*MaxText)},
	} {
		if n := len(f.AppendTo(nil)); n > MaxFrame {
			t.Errorf("the longest %v has a body of %d bytes, more than %d", f.FrameType(), n, MaxFrame)
		}
	}
	if got := DataOverhead + MaxData; got != 4*16384 {
		t.Errorf("the longest DATA frame has %d bytes, want four TLS records", got)
	}
}

func FuzzTunnelFrame(f *testing.F) {
	for _, g := range frameGoldens {
		f.Add(uint8(g.frame.FrameType()), g.frame.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		parse := frameParsers[FrameType(typ)]
		if parse == nil {
			return
		}
		before := bytes.Clone(body)
		frame, err := parse(body)
		if !bytes.Equal(body, before) {
			t.Fatal("the parser changed the body")
		}
		if err != nil {
			return
		}
		if got := frame.AppendTo(nil); !bytes.Equal(got, body) {
			t.Errorf("%v accepted as %+v re-encodes to %x, was %x", FrameType(typ), frame, got, body)
		}
	})
}

func FuzzFrameHeader(f *testing.F) {
	f.Add([]byte{5, 1, 0, 2, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < FrameHeaderLen {
			return
		}
		h, err := ParseFrameHeader(b)
		if err != nil {
			return
		}
		var got [FrameHeaderLen]byte
		if h.PutTo(got[:]); !bytes.Equal(got[:], b[:FrameHeaderLen]) {
			t.Errorf("%+v re-encodes to %x, was %x", h, got, b[:FrameHeaderLen])
		}
	})
}
