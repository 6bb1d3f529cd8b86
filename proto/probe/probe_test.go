package probe

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
)

var (
	to  = ID{1, 2, 3, 4, 5, 6, 7, 8}
	key = Key{31: 9}
	ask = Probe{Echo: leg.Echo{Token: 0x1112131415161718, Interval: 15 * time.Second, Lost: time.Minute}, Counter: 7}
	// answers over both IP versions
	answer4 = Probe{Echo: leg.Echo{Answer: true, Token: 1, Interval: time.Millisecond}, Counter: 1<<32 - 1, Seen: netip.MustParseAddrPort("192.0.2.1:4500")}
	answer6 = Probe{Echo: leg.Echo{Answer: true, Token: 1, Interval: time.Hour, Lost: time.Hour}, Counter: 1, Seen: netip.MustParseAddrPort("[2001:db8::1]:65535")}
)

func TestProbeHasTheLayoutOfItsDocumentation(t *testing.T) {
	for name, test := range map[string]struct {
		probe Probe
		want  string // without the MAC
	}{
		"ask":              {ask, "0300000000000000" + "0102030405060708" + "1112131415161718" + "00003a98" + "0000ea60" + "00000007" + "00000000000000000000000000000000000000"},
		"answer over IPv4": {answer4, "0400000000000000" + "0102030405060708" + "0000000000000001" + "00000001" + "00000000" + "ffffffff" + "04c00002010000000000000000000000001194"},
		"answer over IPv6": {answer6, "0400000000000000" + "0102030405060708" + "0000000000000001" + "0036ee80" + "0036ee80" + "00000001" + "1020010db8000000000000000000000001ffff"},
	} {
		b := test.probe.AppendTo([]byte("before"), to, key)
		if string(b[:6]) != "before" || len(b) != 6+Len {
			t.Fatalf("%s: %x", name, b)
		}
		b = b[6:]
		if got := hex.EncodeToString(b[:macAt]); got != test.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, test.want)
		}
		if got, err := Open(b, key); err != nil || got != test.probe {
			t.Errorf("%s read again: %+v, %v", name, got, err)
		}
		if id, ok := IDOf(b); !ok || id != to {
			t.Errorf("%s: id %x, %t", name, id, ok)
		}
		if leg.IsSTUN(b) {
			t.Errorf("%s is taken for STUN", name)
		}
		if _, err := leg.ParseEcho(b); err == nil {
			t.Errorf("%s is taken for an echo", name)
		}
	}
	const most = 100
	if Len > most {
		t.Errorf("a probe has %d bytes, T44 allows %d", Len, most)
	}
}

// Not one bit of a probe can be changed by who has not the key, and nothing of it be
// left out.
func TestProbeIsProvenWhole(t *testing.T) {
	for _, p := range []Probe{ask, answer4, answer6} {
		b := p.AppendTo(nil, to, key)
		for i := range 8 * Len {
			b[i/8] ^= 1 << (i % 8)
			if got, err := Open(b, key); err == nil {
				t.Errorf("bit %d changed: %+v", i, got)
			}
			b[i/8] ^= 1 << (i % 8)
		}
		for n := range b {
			if _, err := Open(b[:n], key); err == nil {
				t.Errorf("cut to %d bytes, it is a probe", n)
			}
			if _, ok := IDOf(b[:n]); ok {
				t.Errorf("cut to %d bytes, it looks like a probe", n)
			}
		}
		if _, err := Open(append(b, 0), key); err == nil {
			t.Error("with a byte more, it is a probe")
		}
		if _, err := Open(b, Key{31: 8}); err == nil {
			t.Error("proven by another key")
		}
	}
}

// Who has the key may say nothing that the layout does not allow either.
func TestProbeWithAForbiddenValueIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(b []byte){
		"another kind":              func(b []byte) { b[0] = 1 },
		"not zeros":                 func(b []byte) { b[5] = 1 },
		"no interval":               func(b []byte) { copy(b[24:28], []byte{0, 0, 0, 0}) },
		"interval too long":         func(b []byte) { b[24] = 1 },
		"loss too long":             func(b []byte) { b[28] = 1 },
		"no counter":                func(b []byte) { copy(b[32:36], []byte{0, 0, 0, 0}) },
		"no address":                func(b []byte) { b[36] = 0 },
		"address of a strange kind": func(b []byte) { b[36] = 5 },
		"bytes behind the address":  func(b []byte) { b[45] = 1 },
		"no port":                   func(b []byte) { b[53], b[54] = 0, 0 },
		"an ask that has seen":      func(b []byte) { b[0] = kindAsk },
		"IPv4 written as IPv6": func(b []byte) {
			b[36] = 16
			copy(b[37:53], netip.MustParseAddr("::ffff:192.0.2.1").AsSlice())
		},
	} {
		b := answer4.AppendTo(nil, to, key)[:macAt]
		spoil(b)
		if got, err := Open(append(b, sign(b, key)...), key); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestTimesOfAProbeAreCutToTheirFields(t *testing.T) {
	p := ask
	p.Echo.Interval, p.Echo.Lost = 2*time.Hour, 2*time.Hour
	if got, err := Open(p.AppendTo(nil, to, key), key); err != nil || got.Echo.Interval != time.Hour || got.Echo.Lost != time.Hour {
		t.Errorf("%+v, %v", got, err)
	}
	p.Echo.Interval, p.Echo.Lost = 0, -1
	if got, err := Open(p.AppendTo(nil, to, key), key); err != nil || got.Echo.Interval != time.Millisecond || got.Echo.Lost != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEachPortalHasItsOwnID(t *testing.T) {
	k := Keys{ToClient: ID{1}, ToServer: ID{2}}
	if k.Own(true) != k.ToClient || k.Own(false) != k.ToServer {
		t.Errorf("%v for the client, %v for the server", k.Own(true), k.Own(false))
	}
}

// A counter is taken once, in whatever order they come; those that are far behind
// are not taken at all.
func TestCounterIsTakenOnce(t *testing.T) {
	var w Window
	taken := make(map[uint32]bool)
	top := uint32(0)
	for range 20_000 {
		n := 1 + top + rand.N[uint32](300) - min(top, 270)
		got := w.Take(n)
		want := !taken[n] && (n > top || top-n < windowSize)
		if got != want {
			t.Fatalf("counter %d after %d: taken %t, want %t", n, top, got, want)
		}
		taken[n] = taken[n] || got
		top = max(top, n)
	}
	for _, n := range []uint32{1 << 31, 1<<32 - 1, 1<<32 - windowSize, 3, 1<<32 - 2, 1} {
		if !w.Take(n) || w.Take(n) {
			t.Errorf("counter %d is not taken once", n)
		}
	}
	for _, n := range []uint32{1<<32 - windowSize, 1<<31 + 4} {
		if w.Take(n) {
			t.Errorf("counter %d was taken far behind", n)
		}
	}
	var late Window
	if n := uint32(1<<32 - 1); !late.Take(n) || late.Take(n) || !late.Take(1) {
		t.Error("a window that begins high is none")
	}
}

func FuzzOpen(f *testing.F) {
	for _, p := range []Probe{ask, answer4, answer6} {
		f.Add(p.AppendTo(nil, to, key)[:macAt])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Open(b, key); err == nil && len(b) != Len {
			t.Fatalf("%d bytes are a probe", len(b))
		}
		if len(b) != macAt { // the fuzzer has the key, or it would never get past the MAC
			return
		}
		whole := append(append([]byte{}, b...), sign(b, key)...)
		p, err := Open(whole, key)
		if err != nil {
			return
		}
		id, ok := IDOf(whole)
		if !ok {
			t.Fatalf("%x is a probe and has no id", whole)
		}
		if again := p.AppendTo(nil, id, key); string(again) != string(whole) {
			t.Fatalf("%x written again is %x", whole, again)
		}
	})
}
