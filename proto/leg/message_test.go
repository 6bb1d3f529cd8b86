package leg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/netport/netport/proto/wire"
)

const (
	goldenHead  = "2112a442303132333435363738393a3b"
	goldenCount = "fe4e00080000000000000007"
	goldenNonce = "0015002830313233343536373839616263646566303132333435363738396162636465663031323334353637"
)

var (
	testTransaction = transactionID([]byte("0123456789:;"))
	testChallenge   = []byte("0123456789abcdef0123456789abcdef01234567")

	goldenMessages = []struct {
		name string
		make func(b []byte) []byte
		want string
	}{
		{
			"first request",
			func(b []byte) []byte {
				return appendRequest(b, Request{ID: testID, Counter: 7, transaction: testTransaction}, testSecret)
			},
			"000100ac" + goldenHead + user() + goldenCount + "0026004c" + strings.Repeat("00", 76) +
				"001c0020b28e225054fac2b6c8d3d9ba5f1c51b6b51d9831a724130a4cfa8eaa025a15c9",
		},
		{
			"second request",
			func(b []byte) []byte {
				return appendRequest(b, Request{ID: testID, Counter: 7, transaction: testTransaction, nonce: testChallenge}, testSecret)
			},
			"000100ac" + goldenHead + user() + goldenCount + goldenNonce + "00260020" + strings.Repeat("00", 32) +
				"001c0020e2598016fd37ff7a6dd2ce0f59b6ca14844d9084774e02fa655f17956134300d",
		},
		{
			"challenge",
			func(b []byte) []byte { return appendChallenge(b, testTransaction, testChallenge, testSecret) },
			"01110058" + goldenHead + "0009000400000401" + goldenNonce +
				"001c00207bead5b6e8afd73c63450a0fde68cde0b859552cfc4f87580fde8ebb2bf93632",
		},
		{
			"success, IPv4",
			func(b []byte) []byte {
				return appendSuccess(b, testTransaction, netip.MustParseAddrPort("192.0.2.1:4321"), testSecret)
			},
			"01010030" + goldenHead + "00200008" + "000131f3e112a643" +
				"001c0020b1fb386b7a275fd8c2c02f939c21acd775e49247430cbd026a1e26a5fb36d150",
		},
		{
			"success, IPv6",
			func(b []byte) []byte {
				return appendSuccess(b, testTransaction, netip.MustParseAddrPort("[2001:db8::7]:65535"), testSecret)
			},
			"0101003c" + goldenHead + "00200014" + "0002deed0113a9fa303132333435363738393a3c" +
				"001c002000c8ff7cfbf54a25b151037f224f38364c16c6d1f68712e68d4169d8dcb78016",
		},
	}
)

// user is the USERNAME of testID.
func user() string {
	return "00060028" + "30313032303330343035303630373038303930613062306330643065306631303a313a3034363630"
}

func TestMessagesHaveTheirGoldenBytes(t *testing.T) {
	for _, m := range goldenMessages {
		got := m.make([]byte("before"))
		if want := append([]byte("before"), unhex(t, m.want)...); !bytes.Equal(got, want) {
			t.Errorf("%s\ngot  %x\nwant %x", m.name, got, want)
		}
	}
}

func TestRequestsAreReadBack(t *testing.T) {
	for i, nonce := range [][]byte{nil, testChallenge} {
		q, err := ParseRequest(unhex(t, goldenMessages[i].want))
		if err != nil {
			t.Fatal(err)
		}
		if q.ID != testID || q.Counter != 7 || q.transaction != testTransaction || !bytes.Equal(q.nonce, nonce) {
			t.Errorf("%s: got %+v", goldenMessages[i].name, q)
		}
		if !q.ProvenBy(testSecret) || q.ProvenBy(wire.NewSecret()) {
			t.Errorf("%s: proven by the wrong secrets", goldenMessages[i].name)
		}
	}
}

func TestNoAnswerIsLongerThanItsRequest(t *testing.T) {
	for _, m := range goldenMessages {
		n := len(m.want) / 2
		if strings.HasSuffix(m.name, "request") {
			if n != RequestLen {
				t.Errorf("%s has %d bytes, want %d", m.name, n, RequestLen)
			}
		} else if n > MaxAnswerLen {
			t.Errorf("%s has %d bytes, more than %d", m.name, n, MaxAnswerLen)
		}
	}
	if MaxAnswerLen > RequestLen {
		t.Errorf("answers of %d bytes to requests of %d", MaxAnswerLen, RequestLen)
	}
}

func TestRequestIsRefusedWhenAnyBitDiffers(t *testing.T) {
	for _, m := range goldenMessages[:2] {
		good := unhex(t, m.want)
		for bit := range len(good) * 8 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			if q, err := ParseRequest(b); err == nil && q.ProvenBy(testSecret) {
				t.Errorf("%s, bit %d flipped: still proven", m.name, bit)
			}
		}
	}
}

func TestMessagesAreRefusedWhenTruncatedOrLong(t *testing.T) {
	for _, m := range goldenMessages {
		good := unhex(t, m.want)
		for n := range len(good) {
			if _, err := ParseRequest(good[:n]); err == nil {
				t.Errorf("%s cut to %d bytes is a request", m.name, n)
			}
			if _, err := parseAnswer(good[:n:n], testSecret); err == nil {
				t.Errorf("%s cut to %d bytes is an answer", m.name, n)
			}
		}
		long := append(bytes.Clone(good), 0, 0, 0, 0)
		if _, err := ParseRequest(long); err == nil {
			t.Errorf("%s with 4 bytes more is a request", m.name)
		}
		if _, err := parseAnswer(long, testSecret); err == nil {
			t.Errorf("%s with 4 bytes more is an answer", m.name)
		}
	}
}

func TestCookieInItsPlaceMakesAPacketTheRelays(t *testing.T) {
	cookie := []byte("....\x21\x12\xa4\x42")
	for n := range 300 {
		packet := append(bytes.Clone(cookie), make([]byte, n)...)
		if !IsSTUN(packet) {
			t.Errorf("not with the cookie and %d bytes after it", n)
		}
		if packet[7]++; IsSTUN(packet) {
			t.Errorf("with another cookie and %d bytes after it", n)
		}
	}
	for n := range len(cookie) {
		if IsSTUN(cookie[:n]) {
			t.Errorf("with %d bytes of the cookie", n-4)
		}
	}
}

func TestUsernamesHaveOneForm(t *testing.T) {
	good := string(testID.username())
	if got, ok := parseUsername([]byte(good)); !ok || got != testID {
		t.Fatalf("%q: got %v, %v", good, got, ok)
	}
	for _, bad := range []string{
		"", good[1:], good + "0",
		strings.Replace(good, ":1:", ":2:", 1),
		strings.Replace(good, ":1:", ":1 ", 1),
		strings.Replace(good, "0a", "0A", 1),
		strings.Replace(good, "0a", "0g", 1),
		strings.Replace(good, "04660", "+4660", 1),
		strings.Replace(good, "04660", "65536", 1),
		strings.Replace(good, "04660", "0466_", 1),
	} {
		if id, ok := parseUsername([]byte(bad)); ok {
			t.Errorf("%q is read as %v", bad, id)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, m := range goldenMessages {
		f.Add(unhex(f, m.want))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseRequest(b)
		if err != nil {
			return
		}
		again := appendRequest(nil, q, testSecret)
		if got, want := again[:RequestLen-32], b[:RequestLen-32]; !bytes.Equal(got, want) {
			t.Errorf("accepted and written differ:\n%x\n%x", want, got)
		}
		q.ProvenBy(testSecret)
	})
}

// FuzzParseAnswer gives every input a good MAC: a hostile relay has the leg
// secret.
func FuzzParseAnswer(f *testing.F) {
	for _, m := range goldenMessages {
		b := unhex(f, m.want)
		f.Add(b[:len(b)-integrityLen])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.BigEndian.AppendUint32(bytes.Clone(b), 0x001c0020)
		b = append(b, sign(b[:len(b)-4], testSecret)...)
		if v, err := parseAnswer(b, testSecret); err == nil && v.nonce == nil && !v.mapped.Addr().IsValid() {
			t.Errorf("%x has neither a nonce nor an address", b)
		}
	})
}
