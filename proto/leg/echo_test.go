package leg

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

func TestEchoHasOneForm(t *testing.T) {
	for _, c := range []struct {
		echo Echo
		want string
	}{
		{Echo{Token: 0x0102030405060708, Interval: 15 * time.Second}, "0100000000000000" + "0102030405060708" + "00003a98" + "00000000"},
		{Echo{Answer: true, Token: 7, Interval: time.Hour, Lost: 1500 * time.Millisecond}, "0200000000000000" + "0000000000000007" + "0036ee80" + "000005dc"},
	} {
		got := c.echo.AppendTo([]byte("x"))
		if hex.EncodeToString(got[1:]) != c.want || len(got) != 1+EchoLen {
			t.Errorf("%+v: %x, want %s", c.echo, got[1:], c.want)
		}
		back, err := ParseEcho(got[1:])
		if err != nil || back != c.echo {
			t.Errorf("%s: read %+v, %v", c.want, back, err)
		}
		if got[1]&0xc0 != 0 || IsSTUN(got[1:]) {
			t.Errorf("%x would be taken for QUIC or STUN", got[1:])
		}
		for n := range EchoLen {
			if _, err := ParseEcho(got[1 : 1+n]); err == nil {
				t.Errorf("%d of %d bytes were taken", n, EchoLen)
			}
		}
	}
	out := Echo{Interval: 2 * MaxEchoInterval, Lost: 2 * MaxEchoInterval}.AppendTo(nil)
	if e, err := ParseEcho(out); err != nil || e.Interval != MaxEchoInterval || e.Lost != MaxEchoInterval {
		t.Errorf("times out of range: %+v, %v", e, err)
	}
}

func FuzzEcho(f *testing.F) {
	f.Add(Echo{Token: 1, Interval: time.Second}.AppendTo(nil))
	f.Add(Echo{Answer: true, Interval: time.Hour, Lost: time.Minute}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEcho(b)
		if err == nil && !bytes.Equal(e.AppendTo(nil), b) {
			t.Errorf("%x is taken, and written %x", b, e.AppendTo(nil))
		}
	})
}
