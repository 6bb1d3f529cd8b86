package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var fragmentGoldens = []struct {
	fragment Fragment
	bytes    string
}{
	{Fragment{Stream: 0x01020304, Length: 5, Data: []byte("whole")}, "00" + "01020304" + "77686f6c65"},
	{Fragment{Stream: 3, Data: []byte{}}, "00" + "00000003"},
	{
		Fragment{Stream: 0x01020304, Part: true, Number: 0x11121314, Length: 0x0408, Offset: 0x0404, Data: []byte("last")},
		"01" + "01020304" + "11121314" + "0408" + "0404" + "6c617374",
	},
	{
		Fragment{Stream: 5, Part: true, Number: 1, Length: MaxDatagram, Data: make([]byte, MinPart)},
		"01" + "00000005" + "00000001" + "ffe3" + "0000" + strings.Repeat("00", MinPart),
	},
}

func TestFragmentsAreTheirGoldenBytes(t *testing.T) {
	for _, g := range fragmentGoldens {
		want, err := hex.DecodeString(g.bytes)
		if err != nil {
			t.Fatal(err)
		}
		got := g.fragment.AppendTo([]byte("before"))
		if !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%+v is %x, want %x", g.fragment, got[6:], want)
		}
		back, err := ParseFragment(want)
		if err != nil || !cmp.Equal(back, g.fragment) {
			t.Errorf("%x is %+v, %v; want %+v", want, back, err, g.fragment)
		}
	}
}

func TestFragmentFieldsKeepTheirLimits(t *testing.T) {
	part := func(length, offset, n int) []byte {
		return Fragment{Stream: 1, Part: true, Number: 1, Length: length, Offset: offset, Data: make([]byte, n)}.AppendTo(nil)
	}
	for name, b := range map[string][]byte{
		"nothing":                    {},
		"another kind":               {2, 0, 0, 0, 1},
		"the carrier itself":         {0, 0, 0, 0, 0},
		"a header that is cut":       part(2000, 0, 0)[:PartHeaderLen-1],
		"a part without a byte":      part(2000, 1999, 0),
		"a part that is the whole":   part(2000, 0, 2000),
		"a part behind the end":      part(2000, 1000, 1001),
		"a short part in the middle": part(4000, 0, MinPart-1),
		"too long":                   part(MaxDatagram+1, 0, MinPart),
		"a whole one too long":       Fragment{Stream: 1, Data: make([]byte, MaxDatagram+1)}.AppendTo(nil),
	} {
		if m, err := ParseFragment(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, b := range map[string][]byte{
		"the longest":          Fragment{Stream: 1, Data: make([]byte, MaxDatagram)}.AppendTo(nil),
		"the shortest of all":  part(MinPart+1, MinPart, 1),
		"the last of the long": part(MaxDatagram, MaxDatagram-1, 1),
	} {
		if _, err := ParseFragment(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFragment(f *testing.F) {
	for _, g := range fragmentGoldens {
		f.Add(g.fragment.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseFragment(b)
		if err != nil {
			if !cmp.Equal(m, Fragment{}) {
				t.Errorf("an error and %+v", m)
			}
			return
		}
		if again := m.AppendTo(nil); !bytes.Equal(again, b) {
			t.Errorf("%x encodes to %x", b, again)
		}
	})
}
