package logs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFloodIsCutShortAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := Steady(slog.New(slog.NewTextHandler(&b, nil))).With("peer", "ann")
		for range 1000 {
			log.Warn("refused")
		}
		if got := strings.Count(b.String(), "\n"); got != burst {
			t.Fatalf("%d lines of 1000, want %d", got, burst)
		}
		b.Reset()
		time.Sleep(time.Second)
		for range 1000 {
			log.Warn("refused")
		}
		first, _, _ := strings.Cut(b.String(), "\n")
		if got := strings.Count(b.String(), "\n"); got != perSecond || !strings.Contains(first, "left-out=900") || !strings.Contains(first, "peer=ann") {
			t.Errorf("a second later %d lines, want %d; the first: %s", got, perSecond, first)
		}
	})
}
