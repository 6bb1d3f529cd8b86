package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netport/netport/proto/identity"
)

var (
	testSession = SessionID(bytes.Repeat([]byte{0x51}, 16))
	testGrant   = GrantID(bytes.Repeat([]byte{0x61}, 16))
	testSecret0 = Secret(bytes.Repeat([]byte{0xa0}, 32))
	testSecret1 = Secret(bytes.Repeat([]byte{0xa1}, 32))
	testKey     = ed25519.PublicKey(bytes.Repeat([]byte{0xee}, 32))
)

// The same in hexadecimal, as they stand in goldens.
const (
	hexSession = "51515151515151515151515151515151"
	hexGrant   = "61616161616161616161616161616161"
	hexSecret0 = "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0"
	hexSecret1 = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
	hexKey     = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
)

// direction is who may receive a message.
type direction int

const (
	fromPortal direction = 1 << iota
	toPortal
	fromRelay
	toRelay
	fromJoiner
	toJoiner
)

// receive parses a body as the receiver of one direction does.
func receive(d direction, t Type, body []byte) (Message, error) {
	switch d {
	case fromPortal:
		return orNil(ParseFromPortal(t, body))
	case toPortal:
		return orNil(ParseToPortal(t, body))
	case fromRelay:
		return orNil(ParseFromRelay(t, body))
	case fromJoiner:
		return orNil(ParseFromJoiner(t, body))
	case toJoiner:
		return orNil(ParseToJoiner(t, body))
	}
	return orNil(ParseToRelay(t, body))
}

func orNil[M Message](m M, err error) (Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

var directions = []direction{fromPortal, toPortal, fromRelay, toRelay, fromJoiner, toJoiner}

// golden is a message, no field of it zero, and its body in hexadecimal, one
// field a line.
type golden struct {
	message Message
	to      direction
	body    string
}

// controlGoldens holds a message of every type.
var controlGoldens = append([]golden{
	{
		Hello{Version: 0x0102, Software: "np/1"},
		fromPortal | fromRelay,
		"0102" + // version
			"0004 6e702f31", // software
	},
	{
		Welcome{Version: 1, Time: 0x6921a2b3, Stamp: []ed25519.PublicKey{testKey}, Seen: netip.MustParseAddr("192.0.2.1")},
		toPortal | toRelay,
		"0001" + // version
			"000000006921a2b3" + // time
			"0001 " + hexKey + // keys
			"04 c0000201", // seen
	},
	{
		Ping{Token: 0x0102030405060708},
		fromPortal | toPortal | fromRelay | toRelay,
		"0102030405060708",
	},
	{
		Pong{Token: 0x1112131415161718},
		fromPortal | toPortal | fromRelay | toRelay,
		"1112131415161718",
	},
	{
		Goodbye{Reason: ReasonReplaced, Text: "bye"},
		fromPortal | toPortal | fromRelay | toRelay,
		"0007" + // reason
			"0003 627965", // text
	},
	{
		OpenSession{Request: 7, Peer: "b-1", Grant: testGrant, Transports: TransportSplice | TransportTLS, Lost: "r1"},
		fromPortal,
		"00000007" + // request
			"0003 622d31" + // peer
			hexGrant +
			"09" + // transports
			"0002 7231", // lost
	},
	{
		SessionDone{Session: testSession, Reason: ReasonIdle},
		fromPortal,
		hexSession +
			"0008", // reason
	},
	{
		Session{
			Request: 9, ID: testSession, Leg: 1, Secret: testSecret0, Peer: "b",
			Relay: RelayAccess{Name: "r1", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5")},
				TCP: 20001, UDP: 20002, SharedTCP: 443, SharedUDP: 3478, Packet: 28672},
			Lifetime: 300, Transports: TransportUDP, Replaces: SessionID(testGrant),
		},
		toPortal,
		"00000009" + // request
			hexSession +
			"01" + // leg
			hexSecret0 +
			"0001 62" + // peer
			"0002 7231" + // relay: name
			"0002 04 cb007105 10 20010db8000000000000000000000005" + // addresses
			"4e21 4e22 01bb 0d96 7000" + // ports
			"0000012c" + // lifetime
			"04" + // transports
			hexGrant, // replaces
	},
	{
		Refused{Request: 9, Reason: ReasonNotGranted, Text: "no"},
		toPortal,
		"00000009" + // request
			"0010" + // reason
			"0002 6e6f", // text
	},
	{
		SessionEnded{Session: testSession, Reason: ReasonLifetime},
		toPortal,
		hexSession +
			"0009", // reason
	},
	{
		PutGrant{Grant: []byte("grant")},
		toPortal,
		"6772616e74",
	},
	{
		RemoveGrant{Grant: testGrant, Reason: ReasonGrantRemoved},
		toPortal,
		hexGrant +
			"0012", // reason
	},
	{
		GrantsComplete{Version: 0x0102030405060708, Signature: [64]byte(bytes.Repeat([]byte{0xab}, 64))},
		toPortal,
		"0102030405060708" + // version
			strings.Repeat("ab", 64), // signature
	},
	{
		PeerState{Name: "b.c-1", Online: true},
		toPortal,
		"0005 622e632d31" + // name
			"01", // online
	},
	{
		RelayTimes{Times: []RelayTime{{Relay: "r1", Time: 0x010203 * time.Microsecond}}},
		fromPortal,
		"0001 0002 7231 00010203",
	},
	{
		Servers{Addresses: []string{"np.example:443"}},
		toPortal,
		"0001 000e 6e702e6578616d706c653a343433",
	},
	{
		Ticket{Session: testSession, Leg: 1, Secret: testSecret1, Peer: "b", Relay: RelayAccess{
			Name: "r1", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5")}, SharedTCP: 443, SharedUDP: 3478,
		}, Transports: TransportTLS},
		toPortal,
		hexSession +
			"01" + // leg
			hexSecret1 +
			"0001 62" + // peer
			"0002 7231 0001 04 cb007105 0000 0000 01bb 0d96 0000" + // relay
			"08", // transports
	},
	{
		Relays{Relays: []RelayPlace{{Name: "r1", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5")}, Port: 443}}},
		toPortal,
		"0001 0002 7231 0001 04 cb007105 01bb",
	},
	{
		RelayDraining{Reason: ReasonShutdown},
		fromRelay,
		"0001",
	},
	{
		TicketKeys{Keys: []Secret{testSecret0, testSecret1}},
		toRelay,
		"0002" + hexSecret0 + hexSecret1,
	},
	{
		RelayState{Ready: true},
		toPortal,
		"01",
	},
	{
		RelayReady{First: 20000, Last: 32767, SharedTCP: 443, SharedUDP: 3478, Capacity: 70000, Transports: TransportPacket, Sessions: []HeldSession{
			{ID: testSession, Portals: [2]string{"a", "b-1"}, Transports: TransportSplice | TransportPacket, Age: 86400},
		}},
		fromRelay,
		"4e20 7fff" + // first, last
			"01bb 0d96" + // shared
			"00011170" + // capacity
			"02" + // transports
			"0001 " + hexSession + "0001 61 0003 622d31" + "03" + "00015180", // sessions
	},
	{
		RelayLoad{Sessions: 0x01020304, Rate: 0x0a0b0c0d0e0f1011},
		fromRelay,
		"01020304" + // sessions
			"0a0b0c0d0e0f1011", // rate
	},
	{
		SessionReady{ID: testSession, TCP: 20001, UDP: 20002, Packet: [2]uint16{28672, 32760}},
		fromRelay,
		hexSession +
			"4e21 4e22" + // ports
			"7000 7ff8", // packet
	},
	{
		SessionRefused{ID: testSession, Reason: ReasonBusy, Text: "full"},
		fromRelay,
		hexSession +
			"0004" + // reason
			"0004 66756c6c", // text
	},
	{
		SessionOver{ID: testSession, Reason: ReasonIdle, Forth: 0x0102030405060708, Back: 0x1112131415161718},
		fromRelay,
		hexSession +
			"0008" + // reason
			"0102030405060708" + // forth
			"1112131415161718", // back
	},
	{
		CreateSession{ID: testSession, Lifetime: 60, Transports: TransportSplice, Legs: [2]Leg{
			{Portal: "a", Secret: testSecret0, Source: netip.MustParseAddr("192.0.2.1")},
			{Portal: "b", Secret: testSecret1, Source: netip.MustParseAddr("2001:db8::2")},
		}},
		toRelay,
		hexSession +
			"0000003c" + // lifetime
			"01" + // transports
			"0001 61" + hexSecret0 + "04 c0000201" + // leg 0
			"0001 62" + hexSecret1 + "10 20010db8000000000000000000000002", // leg 1
	},
	{
		EndSession{ID: testSession, Reason: ReasonGrantRemoved},
		toRelay,
		hexSession +
			"0012", // reason
	},
	{
		OtherRelays{More: true, Relays: []OtherRelay{{
			Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5")},
			First:     20000, Last: 32767, SharedTCP: 443, SharedUDP: 3478,
		}}},
		toRelay,
		"01" + // more
			"0001" + // relays
			"0002 04 cb007105 10 20010db8000000000000000000000005" + // addresses
			"4e20 7fff" + // first, last
			"01bb 0d96", // shared
	},
}, identityGoldens...)

// typeNumbers pins the numbers of the types: they are the protocol.
var typeNumbers = map[Type]Type{
	TypeHello: 1, TypeWelcome: 2, TypePing: 3, TypePong: 4, TypeGoodbye: 5,
	TypeRenew: 6, TypeRevocationsHeld: 7, TypeRenewed: 8, TypeRenewRefused: 9, TypeAuthorities: 10, TypeRevocation: 11, TypeRevocationsComplete: 12,
	TypeEnrol: 96, TypeEnrolWait: 97, TypeEnrolled: 98, TypeEnrolRefused: 99,
	TypeOpenSession: 16, TypeSessionDone: 17,
	TypeSession: 32, TypeRefused: 33, TypeSessionEnded: 34, TypePutGrant: 35, TypeRemoveGrant: 36, TypeGrantsComplete: 37, TypePeerState: 38, TypeRelayState: 39,
	TypeRelayTimes: 18, TypeServers: 40, TypeTicket: 41, TypeRelays: 42, TypeRelayDraining: 69, TypeTicketKeys: 83,
	TypeRelayReady: 64, TypeRelayLoad: 65, TypeSessionReady: 66, TypeSessionRefused: 67, TypeSessionOver: 68,
	TypeCreateSession: 80, TypeEndSession: 81, TypeOtherRelays: 82,
}

func unhexBody(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compareMessages() cmp.Option {
	return cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, Secret{})}
}

func TestEveryControlTypeHasAGolden(t *testing.T) {
	got := make(map[Type]bool)
	for _, g := range controlGoldens {
		got[g.message.Type()] = true
	}
	for typ := range parsers {
		if !got[typ] {
			t.Errorf("type %d has no golden", typ)
		}
		if typeNumbers[typ] != typ {
			t.Errorf("type %d has no pinned number", typ)
		}
	}
	if len(got) != len(parsers) || len(typeNumbers) != len(parsers) {
		t.Errorf("%d goldens and %d numbers for %d types", len(got), len(typeNumbers), len(parsers))
	}
}

func TestControlMessagesAreTheirGoldenBytes(t *testing.T) {
	for _, g := range controlGoldens {
		t.Run(fmt.Sprintf("%T", g.message), func(t *testing.T) {
			want := unhexBody(t, g.body)
			got := g.message.AppendTo([]byte("prefix"))
			if !bytes.Equal(got, append([]byte("prefix"), want...)) {
				t.Errorf("after a prefix:\n got %x\nwant %x", got, append([]byte("prefix"), want...))
			}
			header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, uint16(g.message.Type())), uint32(len(want)))
			if got := AppendMessage(nil, g.message); !bytes.Equal(got, append(header, want...)) {
				t.Errorf("with its header:\n got %x\nwant %x", got, append(header, want...))
			}
			typ, n, err := ParseControlHeader(header)
			if typ != g.message.Type() || n != len(want) || err != nil {
				t.Errorf("header read as type %d, %d bytes, %v", typ, n, err)
			}
			for _, d := range directions {
				m, err := receive(d, g.message.Type(), want)
				if g.to&d == 0 {
					if !errors.Is(err, ErrDirection) {
						t.Errorf("wrong direction %d: got %v, %v; want ErrDirection", d, m, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(g.message, m, compareMessages()); diff != "" {
					t.Errorf("parsed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestCutOrLongControlMessagesAreRefused(t *testing.T) {
	for _, g := range controlGoldens {
		t.Run(fmt.Sprintf("%T", g.message), func(t *testing.T) {
			full := unhexBody(t, g.body)
			var bad [][]byte
			for n := range full {
				bad = append(bad, full[:n])
			}
			if g.message.Type() == TypePutGrant { // a grant's own layout ends it: see package grant
				bad = [][]byte{nil, make([]byte, MaxGrant+1)}
			} else {
				bad = append(bad, append(slices.Clone(full), 0))
			}
			for _, body := range bad {
				for _, d := range directions {
					if m, err := receive(d, g.message.Type(), body); m != nil || !errors.Is(err, ErrMalformed) {
						t.Fatalf("%d of %d bytes: got %v, %v; want nil, ErrMalformed", len(body), len(full), m, err)
					}
				}
			}
		})
	}
}

func TestUnknownControlTypeIsToldApart(t *testing.T) {
	for _, typ := range []Type{0, 13, 15, 43, 84, 95, 100, 0xffff} {
		for _, d := range directions {
			if m, err := receive(d, typ, []byte{1}); m != nil || !errors.Is(err, ErrUnknownType) {
				t.Errorf("type %d: got %v, %v; want nil, ErrUnknownType", typ, m, err)
			}
		}
	}
}

func TestControlHeaderBoundsTheLength(t *testing.T) {
	for _, tt := range []struct {
		length uint32
		ok     bool
	}{{0, false}, {1, true}, {MaxControl, true}, {MaxControl + 1, false}, {0x7fffffff, false}, {0xffffffff, false}} {
		_, n, err := ParseControlHeader(binary.BigEndian.AppendUint32([]byte{0, 3}, tt.length))
		if (err == nil) != tt.ok || tt.ok && n != int(tt.length) || !tt.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("length %d: got %d, %v", tt.length, n, err)
		}
	}
}

// TestControlFieldsKeepTheirLimits changes one field of a good body at a time.
func TestControlFieldsKeepTheirLimits(t *testing.T) {
	open := func(peer string) string { return "00000007" + peer + hexGrant + "01" + "0000" }
	text := func(n int) string { return fmt.Sprintf("%04x", n) + strings.Repeat("61", n) }
	repeat := func(count int, element string) string {
		return fmt.Sprintf("%04x", count) + strings.Repeat(element, count)
	}
	relay := func(addresses string) string {
		return "00000009" + hexSession + "00" + hexSecret0 + "0001 62" + "0001 72" + addresses + "4e21 4e22 01bb 0d96 7000" + "0000012c" + "04" + hexGrant
	}
	ticket := func(ports string) string {
		return hexSession + "00" + hexSecret0 + "0001 62" + "0001 72" + "0001 04 01020304" + ports + "08"
	}
	leg := func(portal, source string) string { return portal + hexSecret0 + source }
	create := func(legs string) string { return hexSession + "0000003c" + "01" + legs }
	goodLeg := leg("0001 61", "00")
	const held = hexSession + "0001 61 0001 62" + "01" + "0000003c"
	const other = "0001 04 01020304" + "4e20 7fff 0000 0000"
	for _, tt := range []struct {
		name string
		to   direction
		typ  Type
		body string
		ok   bool
	}{
		{"hello of version 0", fromPortal, TypeHello, "0000 0000", true},
		{"hello of version 65535", fromPortal, TypeHello, "ffff 0000", true},
		{"software of 64 bytes", fromPortal, TypeHello, "0001" + text(64), true},
		{"software of 65 bytes", fromPortal, TypeHello, "0001" + text(65), false},
		{"software that is not UTF-8", fromPortal, TypeHello, "0001 0002 c080", false},
		{"welcome without keys", toPortal, TypeWelcome, "0001 0000000000000001 0000 00", true},
		{"welcome with 8 keys", toPortal, TypeWelcome, "0001 0000000000000001" + repeat(8, hexKey) + "00", true},
		{"welcome with 9 keys", toPortal, TypeWelcome, "0001 0000000000000001" + repeat(9, hexKey) + "00", false},
		{"welcome without an address", toPortal, TypeWelcome, "0001 0000000000000001 0000", false},
		{"welcome with 65535 keys announced", toPortal, TypeWelcome, "0001 0000000000000001 ffff" + hexKey + "00", false},
		{"text of 256 bytes", toPortal, TypeRefused, "00000009 0010" + text(256), true},
		{"text of 257 bytes", toPortal, TypeRefused, "00000009 0010" + text(257), false},
		{"text longer than the message", toPortal, TypeRefused, "00000009 0010 00ff 61", false},
		{"bool of 2", toPortal, TypePeerState, "0001 62 02", false},
		{"bool of 0", toPortal, TypePeerState, "0001 62 00", true},

		{"request 0", fromPortal, TypeOpenSession, "00000000" + "0001 62" + hexGrant + "01" + "0000", false},
		{"empty peer", fromPortal, TypeOpenSession, open("0000"), false},
		{"peer of 63 bytes", fromPortal, TypeOpenSession, open(text(63)), true},
		{"peer of 64 bytes", fromPortal, TypeOpenSession, open(text(64)), false},
		{"peer of 65535 bytes", fromPortal, TypeOpenSession, open(text(65535)), false},
		{"peer in upper case", fromPortal, TypeOpenSession, open("0001 42"), false},
		{"peer ../x", fromPortal, TypeOpenSession, open("0004 2e2e2f78"), false},
		{"peer with NUL", fromPortal, TypeOpenSession, open("0003 610062"), false},
		{"peer with a line end", fromPortal, TypeOpenSession, open("0003 610a62"), false},
		{"peer with ESC", fromPortal, TypeOpenSession, open("0003 611b62"), false},
		{"peer with bidi override", fromPortal, TypeOpenSession, open("0005 61e280ae62"), false},
		{"peer not UTF-8", fromPortal, TypeOpenSession, open("0003 61ff62"), false},
		{"peer with final dot", fromPortal, TypeOpenSession, open("0002 612e"), false},
		{"unknown transports", fromPortal, TypeOpenSession, "00000007" + "0001 62" + hexGrant + "ff" + "0000", true},

		{"session with one relay address", toPortal, TypeSession, relay("0001 04 01020304"), true},
		{"session without a relay address", toPortal, TypeSession, relay("0000"), false},
		{"session with 16 relay addresses", toPortal, TypeSession, relay(repeat(16, "04 01020304")), true},
		{"session with 17 relay addresses", toPortal, TypeSession, relay(repeat(17, "04 01020304")), false},
		{"session with an empty relay address", toPortal, TypeSession, relay("0002 04 01020304 00"), false},
		{"session of leg 2", toPortal, TypeSession, strings.Replace(relay("0001 04 01020304"), hexSession+"00", hexSession+"02", 1), false},
		{"session with id 0", toPortal, TypeSession, strings.Replace(relay("0001 04 01020304"), hexSession, strings.Repeat("00", 16), 1), false},
		{"session of lifetime 0", toPortal, TypeSession, strings.Replace(relay("0001 04 01020304"), "0000012c", "00000000", 1), false},
		{"session with relay in upper case", toPortal, TypeSession, strings.Replace(relay("0001 04 01020304"), "0001 72", "0001 52", 1), false},

		{"session that replaces itself", toPortal, TypeSession, strings.Replace(relay("0001 04 01020304"), hexGrant, hexSession, 1), false},
		{"lost relay in upper case", fromPortal, TypeOpenSession, "00000007" + "0001 62" + hexGrant + "01" + "0001 52" + "0000", false},
		{"no servers", toPortal, TypeServers, "0000", false},
		{"16 servers", toPortal, TypeServers, repeat(16, text(260)), true},
		{"17 servers", toPortal, TypeServers, repeat(17, "0001 61"), false},
		{"server of 261 bytes", toPortal, TypeServers, "0001" + text(261), false},
		{"server without a name", toPortal, TypeServers, "0001 0000", false},
		{"ticket with a shared TCP port", toPortal, TypeTicket, ticket("0000 0000 01bb 0000 0000"), true},
		{"ticket with a shared UDP port", toPortal, TypeTicket, ticket("0000 0000 0000 01bb 0000"), true},
		{"ticket without a shared port", toPortal, TypeTicket, ticket("0000 0000 0000 0000 0000"), false},
		{"ticket with a session port", toPortal, TypeTicket, ticket("4e21 0000 01bb 0000 0000"), false},
		{"ticket with a packet port", toPortal, TypeTicket, ticket("0000 0000 01bb 0000 7000"), false},
		{"ticket of leg 2", toPortal, TypeTicket, strings.Replace(ticket("0000 0000 01bb 0000 0000"), hexSession+"00", hexSession+"02", 1), false},
		{"no relays", toPortal, TypeRelays, "0000", true},
		{"50 relays", toPortal, TypeRelays, repeat(50, "0001 72 0001 04 01020304 01bb"), true},
		{"51 relays", toPortal, TypeRelays, repeat(51, "0001 72 0001 04 01020304 01bb"), false},
		{"relay without a port", toPortal, TypeRelays, "0001 0001 72 0001 04 01020304 0000", false},
		{"relay without an address", toPortal, TypeRelays, "0001 0001 72 0000 01bb", false},
		{"no times", fromPortal, TypeRelayTimes, "0000", true},
		{"51 times", fromPortal, TypeRelayTimes, repeat(51, "0001 72 00000001"), false},
		{"longest time", fromPortal, TypeRelayTimes, "0001 0001 72 ffffffff", true},
		{"no ticket keys", toRelay, TypeTicketKeys, "0000", false},
		{"4 ticket keys", toRelay, TypeTicketKeys, repeat(4, hexSecret0), true},
		{"5 ticket keys", toRelay, TypeTicketKeys, repeat(5, hexSecret0), false},

		{"longest grant", toPortal, TypePutGrant, strings.Repeat("61", MaxGrant), true},
		{"grant that is longer", toPortal, TypePutGrant, strings.Repeat("61", MaxGrant+1), false},

		{"relay ports backwards", fromRelay, TypeRelayReady, "4e21 4e20 01bb 0d96 00000001 01 0000", false},
		{"relay ports from 0", fromRelay, TypeRelayReady, "0000 4e20 01bb 0d96 00000001 01 0000", false},
		{"relay with 100 sessions", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01" + repeat(100, held), true},
		{"relay with 101 sessions", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01" + repeat(101, held), false},
		{"relay with 100 sessions announced", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01 0064" + held, false},
		{"held session with id 0", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01 0001" + strings.Replace(held, hexSession, strings.Repeat("00", 16), 1), false},
		{"held session of a portal with itself", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01 0001" + strings.Replace(held, "0001 62", "0001 61", 1), false},
		{"held session of no name", fromRelay, TypeRelayReady, "4e20 4e20 01bb 0d96 00000001 01 0001" + strings.Replace(held, "0001 62", "0000", 1), false},

		{"packet ports of both legs", fromRelay, TypeSessionReady, hexSession + "4e21 4e22 7000 7000", true},
		{"packet ports of no leg", fromRelay, TypeSessionReady, hexSession + "4e21 4e22 0000 0000", true},
		{"packet ports of leg 0 alone", fromRelay, TypeSessionReady, hexSession + "4e21 4e22 7000 0000", false},
		{"packet ports of leg 1 alone", fromRelay, TypeSessionReady, hexSession + "4e21 4e22 0000 7000", false},

		{"legs without a source", toRelay, TypeCreateSession, create(goodLeg + goodLeg), true},
		{"leg without a portal", toRelay, TypeCreateSession, create(goodLeg + leg("0000", "00")), false},
		{"leg whose portal is no name", toRelay, TypeCreateSession, create(goodLeg + leg("0001 2a", "00")), false},
		{"leg with a mapped source", toRelay, TypeCreateSession, create(goodLeg + leg("0001 62", "10 00000000000000000000ffff01020304")), false},
		{"creation with lifetime 0", toRelay, TypeCreateSession, hexSession + "00000000" + "01" + goodLeg + goodLeg, false},
		{"creation with the longest lifetime", toRelay, TypeCreateSession, hexSession + "ffffffff" + "01" + goodLeg + goodLeg, true},
		{"no other relays", toRelay, TypeOtherRelays, "00 0000", true},
		{"50 other relays", toRelay, TypeOtherRelays, "00" + repeat(50, other), true},
		{"51 other relays", toRelay, TypeOtherRelays, "00" + repeat(51, other), false},
		{"50 other relays announced", toRelay, TypeOtherRelays, "00 0032" + other, false},
		{"other relays of more than they are", toRelay, TypeOtherRelays, "02 0000", false},
		{"other relay without an address", toRelay, TypeOtherRelays, "00 0001 0000 4e20 7fff 0000 0000 0000000000", false},
		{"other relay with an empty address", toRelay, TypeOtherRelays, "00 0001 0001 00 4e20 7fff 0000 0000 00000000", false},
		{"other relay with 17 addresses", toRelay, TypeOtherRelays, "00 0001" + repeat(17, "04 01020304") + "4e20 7fff 0000 0000", false},
		{"other relay's ports backwards", toRelay, TypeOtherRelays, "00 0001 0001 04 01020304 4e21 4e20 0000 0000", false},
		{"other relay's ports from 0", toRelay, TypeOtherRelays, "00 0001 0001 04 01020304 0000 4e20 0000 0000", false},
		{"creation with id 0", toRelay, TypeCreateSession, strings.Repeat("00", 16) + "0000003c" + "01" + goodLeg + goodLeg, false},
	} {
		m, err := receive(tt.to, tt.typ, unhexBody(t, tt.body))
		if (err == nil) != tt.ok || !tt.ok && (m != nil || !errors.Is(err, ErrMalformed)) {
			t.Errorf("%s: got %v, %v; accepted should be %v", tt.name, m, err, tt.ok)
		}
	}
}

func TestWhatIsAppendedIsAccepted(t *testing.T) {
	long := strings.Repeat("\u20ac", 200) + "\xff"
	for _, m := range []Message{
		Hello{Version: 1, Software: long},
		Goodbye{Reason: ReasonProtocol, Text: "a\xffb" + long},
	} {
		b := m.AppendTo(nil)
		got, err := receive(fromPortal, m.Type(), b)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		switch got := got.(type) {
		case Hello:
			if want := strings.Repeat("\u20ac", 21); got.Software != want {
				t.Errorf("software %q, want it cut between characters: %q", got.Software, want)
			}
		case Goodbye:
			if !strings.HasPrefix(got.Text, "a\ufffdb\u20ac") || len(got.Text) > MaxText {
				t.Errorf("text of %d bytes %q", len(got.Text), got.Text)
			}
		}
	}
}

func TestLargestMessagesFitTheirFrame(t *testing.T) {
	ready := RelayReady{First: 1, Last: 1}
	long := strings.Repeat("x", identity.MaxName)
	for range MaxHeld {
		ready.Sessions = append(ready.Sessions, HeldSession{ID: testSession, Portals: [2]string{long, long[1:]}})
	}
	var others OtherRelays
	for range MaxOthers {
		o := OtherRelay{First: 1, Last: 1}
		for range MaxAddresses {
			o.Addresses = append(o.Addresses, netip.MustParseAddr("2001:db8::5"))
		}
		others.Relays = append(others.Relays, o)
	}
	for _, m := range append([]Message{ready, others}, largestIdentityMessages()...) {
		if _, _, err := ParseControlHeader(AppendMessage(nil, m)); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	m := CreateSession{Legs: [2]Leg{{Secret: testSecret0}, {Secret: testSecret1}}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		got := fmt.Sprintf(format, m)
		if strings.Contains(got, "a0a0") || strings.Contains(got, "160 160") || strings.Contains(got, "0xa0, 0xa0") || strings.Contains(got, "\xa0\xa0") {
			t.Errorf("%s prints a secret: %s", format, got)
		}
	}
}

// FuzzControl checks every type in every direction: no panic, and a body that
// is accepted is the one encoding of its message, which keeps none of it.
func FuzzControl(f *testing.F) {
	for _, g := range controlGoldens {
		f.Add(uint16(g.message.Type()), unhexBody(f, g.body))
	}
	f.Fuzz(func(t *testing.T, typ uint16, body []byte) {
		for _, d := range directions {
			m, err := receive(d, Type(typ), body)
			if err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownType) && !errors.Is(err, ErrDirection) {
					t.Fatalf("type %d: error of no kind: %v", typ, err)
				}
				continue
			}
			if m.Type() != Type(typ) {
				t.Fatalf("type %d came out as %d", typ, m.Type())
			}
			sent := slices.Clone(body)
			clear(body)
			if got := m.AppendTo(nil); !bytes.Equal(got, sent) {
				t.Fatalf("type %d:\n read %x\nwrote %x", typ, sent, got)
			}
			copy(body, sent)
		}
	})
}

func TestReasonsHaveWordsOfTheirOwn(t *testing.T) {
	words := make(map[string]Reason)
	for r := range Reason(64) {
		s := r.String()
		if other, ok := words[s]; ok {
			t.Errorf("reasons %d and %d are both %q", other, r, s)
		}
		words[s] = r
	}
	if got := Reason(999).String(); got != "reason 999" {
		t.Errorf("unknown reason prints %q", got)
	}
	if n := len(slices.Collect(maps.Keys(words))); n != 64 {
		t.Errorf("%d words for 64 reasons", n)
	}
}

func TestIDsAreTextAsTheyAreBytes(t *testing.T) {
	b, _ := testSession.MarshalText()
	var id SessionID
	if err := id.UnmarshalText(b); err != nil || id != testSession || string(b) != hexSession {
		t.Errorf("session id %s came back as %x, %v", b, id, err)
	}
	for _, bad := range []string{"", "51", hexSession + "51", strings.Repeat("zz", 16)} {
		var g GrantID
		if err := g.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("grant id %q was taken", bad)
		}
	}
	s, s2, k, k2 := NewSessionID(), NewSessionID(), NewSecret(), NewSecret()
	if s == s2 || k == k2 || s.IsZero() {
		t.Error("random ids repeat")
	}
}
