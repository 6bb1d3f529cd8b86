package conffile

import (
	"testing"
	"time"
)

func TestDurationsAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1m": time.Minute, "90m": 90 * time.Minute, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "1500ms": 1500 * time.Millisecond,
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
