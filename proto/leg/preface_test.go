package leg

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/netport/netport/proto/wire"
)

var (
	testSecret = wire.Secret(bytes.Repeat([]byte{0x5a}, 32))
	testID     = ID{
		Session:    wire.SessionID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Leg:        1,
		Connection: 0x1234,
	}
	testNonce = Nonce{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
)

// The golden bytes of this package were computed with Python's hmac and
// struct modules from the package documentation.
const goldenPreface = "4e504c4701" + "0102030405060708090a0b0c0d0e0f10" + "01" + "1234" +
	"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf" + "3b054632f1894a09f94d77d8973d1ac720dd55485f7cfb8c"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPrefaceHasItsGoldenBytes(t *testing.T) {
	prefix := []byte("before")
	got := Preface{ID: testID, Nonce: testNonce}.AppendTo(prefix, testSecret)
	if want := append([]byte("before"), unhex(t, goldenPreface)...); !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
	p, err := ParsePreface(got[len(prefix):])
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != testID || p.Nonce != testNonce || !p.ProvenBy(testSecret) {
		t.Fatalf("parsed %+v, proven %v", p, p.ProvenBy(testSecret))
	}
}

func TestPrefaceIsRefusedWhenAnyBitDiffers(t *testing.T) {
	good := unhex(t, goldenPreface)
	for bit := range len(good) * 8 {
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		if p, err := ParsePreface(b); err == nil && p.ProvenBy(testSecret) {
			t.Errorf("bit %d flipped: still proven", bit)
		}
	}
	p, err := ParsePreface(good)
	if err != nil || p.ProvenBy(wire.NewSecret()) {
		t.Errorf("another secret: error %v, proven %v", err, err == nil)
	}
}

func TestPrefaceIsRefusedWhenTruncatedOrLong(t *testing.T) {
	good := unhex(t, goldenPreface)
	for n := range len(good) {
		if p, err := ParsePreface(good[:n]); err == nil || p != (Preface{}) {
			t.Errorf("%d bytes: got %+v, %v", n, p, err)
		}
	}
	if _, err := ParsePreface(append(good, 0)); err == nil {
		t.Error("65 bytes are accepted")
	}
}

func TestPrefacesDifferByTheirNonce(t *testing.T) {
	a, b := NewPreface(testID), NewPreface(testID)
	if a.Nonce == b.Nonce || a.Nonce == (Nonce{}) {
		t.Errorf("nonces %x and %x", a.Nonce, b.Nonce)
	}
}

func FuzzParsePreface(f *testing.F) {
	f.Add(unhex(f, goldenPreface))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePreface(b)
		if err != nil {
			return
		}
		if got := p.appendFields(nil); !bytes.Equal(got, b[:prefaceMAC]) {
			t.Errorf("%x reads as %+v, which is %x", b, p, got)
		}
		p.ProvenBy(testSecret)
	})
}

func TestMeetingPrefaceHasItsCounter(t *testing.T) {
	b := NewMeeting(testID.Session, 1, 0x0102030405060708).AppendTo(nil, testSecret)
	if got := hex.EncodeToString(b[21:32]); got != "01ffff0102030405060708" {
		t.Errorf("leg, number and counter are %s", got)
	}
	p, err := ParsePreface(b)
	if err != nil || p.Counter() != 0x0102030405060708 || p.ID.Connection != Meeting || !p.ProvenBy(testSecret) {
		t.Errorf("parsed %+v, %v", p, err)
	}
	if again := NewMeeting(testID.Session, 1, 0x0102030405060708); again.Nonce == p.Nonce {
		t.Error("two prefaces of one counter have one nonce")
	}
}
