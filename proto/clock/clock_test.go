package clock

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// world is one device: a folder that outlives its processes, and a wall clock
// that can be set.
type world struct {
	t    *testing.T
	file string
	off  time.Duration // of the wall clock, against the bubble's
}

func newWorld(t *testing.T) *world { return &world{t: t, file: filepath.Join(t.TempDir(), "clock")} }

// set turns the wall clock to at.
func (w *world) set(at time.Time) { w.off = time.Until(at) }

func (w *world) wall() time.Time { return time.Now().Add(w.off) }

// boot starts a process; stop ends it.
func (w *world) boot() (c *Clock, stop func()) {
	w.t.Helper()
	c, err := Open(w.file, build, w.wall)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx, slog.New(slog.DiscardHandler))
	}()
	return c, func() { cancel(); <-done }
}

func (w *world) want(c *Clock, what string, want time.Time) {
	w.t.Helper()
	synctest.Wait()
	if got := c.Now(); !got.Equal(want) {
		w.t.Errorf("%s: %v, want %v", what, got.UTC(), want.UTC())
	}
}

func TestTimeIsNeverBelowWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(time.Unix(0, 0))
		c, stop := w.boot()
		w.want(c, "in 1970", build)
		time.Sleep(time.Minute)
		w.want(c, "a minute later", build.Add(time.Minute))

		told := build.AddDate(0, 0, 5)
		c.Told(told)
		w.want(c, "told by a server", told)
		time.Sleep(time.Minute)
		w.want(c, "told a minute ago", told.Add(time.Minute))
		c.Told(told) // a server whose own clock is behind
		w.want(c, "told an earlier time", told.Add(time.Minute))

		w.set(told.Add(time.Hour)) // somebody sets the clock
		w.want(c, "with a clock that is right", told.Add(time.Hour))
		w.set(time.Unix(0, 0))
		w.want(c, "with a clock that was lost again", told.Add(time.Minute))
		stop()

		c, stop = w.boot()
		defer stop()
		w.want(c, "in the next life", told) // in which it was told
	})
}

func TestClockThatIsAheadIsNotSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		real := build.AddDate(0, 0, 3)
		w.set(real.AddDate(10, 0, 0))
		c, stop := w.boot()
		c.Told(real)
		w.want(c, "ten years ahead", real.AddDate(10, 0, 0))
		if off := c.Off(); off < 10*365*24*time.Hour || off > 10*366*24*time.Hour {
			t.Errorf("off by %v, want ten years", off)
		}
		time.Sleep(30 * 24 * time.Hour)
		stop()

		w.set(real.AddDate(0, 0, 30))
		c, stop = w.boot()
		defer stop()
		w.want(c, "after the clock was mended", real.AddDate(0, 0, 30))
	})
}

func TestSavedTimeFollowsInSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(time.Unix(0, 0))
		floor := func() time.Time {
			t.Helper()
			synctest.Wait()
			at, err := read(w.file)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		c, stop := w.boot()
		if !floor().IsZero() {
			t.Error("a time was saved that nobody has told")
		}
		lie := build.AddDate(1, 0, 0)
		c.Told(lie)
		if got, want := floor(), build.Add(maxStep); !got.Equal(want) {
			t.Errorf("first step to %v, want %v", got, want)
		}
		for range 100 {
			c.Told(lie)
			time.Sleep(stepTime / 200)
		}
		if got, want := floor(), build.Add(maxStep); !got.Equal(want) {
			t.Errorf("told often within the hour: %v, want %v", got, want)
		}
		time.Sleep(stepTime)
		if got, want := floor(), build.Add(2*maxStep); !got.Equal(want) {
			t.Errorf("second step to %v, want %v", got, want)
		}
		stop()

		c, stop = w.boot()
		defer stop()
		w.want(c, "after the lie", build.Add(2*maxStep))
	})
}

// TestFirstStepOfABuildWithoutATime is to where the server says it is: there is
// nothing to count from.
func TestFirstStepOfABuildWithoutATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "clock")
		c, err := Open(file, time.Time{}, func() time.Time { return time.Unix(0, 0) })
		if err != nil {
			t.Fatal(err)
		}
		c.Told(build)
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
		if at, err := read(file); err != nil || !at.Equal(build) {
			t.Errorf("saved %v, %v; want %v", at, err, build)
		}
	})
}

func TestBrokenFileIsSaidAndNotTheEnd(t *testing.T) {
	for _, text := range []string{"", "yesterday\n", "2026-11-22T12:00:00Z", "0000-00-00T00:00:00Z\n"} {
		file := filepath.Join(t.TempDir(), "clock")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(file, build, func() time.Time { return time.Unix(0, 0) })
		if err == nil {
			t.Errorf("%q was read as a time", text)
		}
		if got := c.Now(); got.Before(build) || got.After(build.Add(time.Hour)) {
			t.Errorf("%q: the time is %v, want that of the build", text, got)
		}
	}
}

func TestNoClockIsTheSystems(t *testing.T) {
	var c *Clock
	if off := time.Since(c.Now()); off < 0 || off > time.Minute {
		t.Errorf("off by %v", off)
	}
}
