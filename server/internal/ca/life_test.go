package ca

import (
	"testing"
	"time"
)

func TestLengthsOfTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1m": time.Minute, "90m": 90 * time.Minute, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute,
		"1d": day, "30d": 30 * day, "4w": 28 * day, "1y": 365 * day, "10y": 3650 * day,
	} {
		if got, err := ParseLife(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "30", "30 d", "-1d", "1.5d", "+1d", "59s", "0", "3651d", "11y", "99999999999d", "65535y", "1d12h", "30D", "١d"} {
		if got, err := ParseLife(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}
