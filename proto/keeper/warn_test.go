package keeper

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

// F46: whatever a certificate's life is, its end is spoken of in time, and no more often
// than helps.
func TestEndIsSpokenOfInTime(t *testing.T) {
	begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		life time.Duration
		want []time.Duration // before the end
	}{
		{10 * 365 * day, []time.Duration{90 * day, 30 * day, 7 * day, day, -time.Minute}},
		{365 * day, []time.Duration{73 * day, 30 * day, 7 * day, day, -time.Minute}},
		{90 * day, []time.Duration{18 * day, 7 * day, day, -time.Minute}},
		{30 * day, []time.Duration{7 * day, day, -time.Minute}},
		{20 * day, []time.Duration{4 * day, day, -time.Minute}},
		{5 * day, []time.Duration{day, -time.Minute}},
		{10 * time.Hour, []time.Duration{2 * time.Hour, -time.Minute}},
	} {
		c := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(tt.life)}
		var e Ending
		var got []time.Duration
		step := time.Minute
		if tt.life > 2*day {
			step = time.Hour
		}
		for now := begin; !now.After(c.NotAfter); now = now.Add(step) {
			left, due := e.Due(now, c)
			if due {
				if left == 0 {
					left = -time.Minute // the moment itself
				}
				got = append(got, left)
			}
			if soon := Soon(now, c); soon != (len(got) > 0) {
				t.Fatalf("life %v, %v left: soon %t after %d warnings", tt.life, left, soon, len(got))
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("life %v: spoken of %v before, want %v", tt.life, got, tt.want)
		}
		// Another certificate begins anew; who starts late speaks once.
		next := &x509.Certificate{NotBefore: begin, NotAfter: c.NotAfter.Add(time.Second)}
		if _, due := e.Due(next.NotAfter.Add(-tt.life/1000), next); !due {
			t.Errorf("life %v: nothing is said of the next certificate", tt.life)
		}
		if _, due := e.Due(next.NotAfter.Add(-tt.life/1000), next); due {
			t.Errorf("life %v: the same is said twice", tt.life)
		}
	}
}
