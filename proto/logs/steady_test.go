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
		log := Steady(slog.New(slog.NewTextHandler(&b, nil)), Often).With("peer", "ann")
		for range 1000 {
			log.Warn("refused")
		}
		if got := strings.Count(b.String(), "\n"); got != 100 {
			t.Fatalf("%d lines of 1000, want 100", got)
		}
		b.Reset()
		time.Sleep(time.Second)
		for range 1000 {
			log.Warn("refused")
		}
		first, _, _ := strings.Cut(b.String(), "\n")
		if got := strings.Count(b.String(), "\n"); got != 10 || !strings.Contains(first, "left-out=900") || !strings.Contains(first, "peer=ann") {
			t.Errorf("a second later %d lines, want 10; the first: %s", got, first)
		}
		b.Reset()
		time.Sleep(time.Hour)
		for range 1000 {
			log.Warn("refused")
		}
		if got := strings.Count(b.String(), "\n"); got != 100 {
			t.Errorf("an hour later %d lines of 1000, want 100: what was not used is not saved", got)
		}
	})
}

func TestWhatStaysWrongIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := Steady(slog.New(slog.NewTextHandler(&b, nil)), Seldom)
		for range 1000 {
			log.Warn("not handed over", "error", "nobody there")
			time.Sleep(100 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 2 || strings.Contains(lines[0], "left-out") || !strings.Contains(lines[1], `error="nobody there" left-out=599`) {
			t.Errorf("in 100 seconds it was said:\n%s", b.String())
		}
	})
}

func TestBudgetComesBackWhenTheClockWasSetBack(t *testing.T) {
	b, now := NewBudget(Seldom), time.Unix(1e9, 0)
	for i, at := range []struct {
		now  time.Time
		want bool
	}{{now, true}, {now.Add(time.Second), false}, {now.Add(-time.Hour), true}, {now.Add(-time.Hour), false}} {
		if got, _ := b.Spend(at.now); got != at.want {
			t.Errorf("%d: at %v it may pass: %v", i, at.now, got)
		}
	}
}
