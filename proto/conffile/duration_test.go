package conffile

import (
	"testing"
	"time"
)

func TestDurationsAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1m": time.Minute, "90m": 90 * time.Minute, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "30s": 30 * time.Second, "10m": 10 * time.Minute, "1m30s": 90 * time.Second, "1h0m10s": time.Hour + 10*time.Second, "20h": 20 * time.Hour, "1500ms": 1500 * time.Millisecond,
		"1d": day, "30d": 30 * day, "4w": 28 * day, "1y": 365 * day, "10y": 3650 * day,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
		if again, err := ParseDuration(FormatDuration(want)); err != nil || again != want {
			t.Errorf("%v is written %q, which is read as %v, %v", want, FormatDuration(want), again, err)
		}
	}
	for _, text := range []string{"", "d", "30", "30 d", "-1d", "-1h", "1.5d", "+1d", "99999999999d", "65535y", "1d12h", "30D", "١d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

// What is read is written so that it is read as the same.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30s", "1h", "1h0m10s", "36h", "2w", "1.5h", "1ns", "292y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d || d < 0 {
			t.Fatalf("%q is %v, written %q: %v, %v", s, d, FormatDuration(d), again, err)
		}
	})
}
