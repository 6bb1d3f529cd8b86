package clock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	// maxStep is how far the saved floor rises in one step, stepTime how long
	// after the last another may follow.
	maxStep  = 7 * 24 * time.Hour
	stepTime = time.Hour
	// maxFile is the length of a saved floor in bytes.
	maxFile = 64
)

// built is when the program was built, in RFC 3339. The build sets it; without it
// the time of the commit counts.
var built string

// Built returns when this program was built; the zero Time if nothing says so.
func Built() time.Time {
	text := built
	if info, ok := debug.ReadBuildInfo(); ok && text == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				text = s.Value
			}
		}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Clock is the time of one process. A nil Clock is the system's.
type Clock struct {
	system  func() time.Time
	elapsed func() time.Duration // since the clock was made
	file    string

	word chan struct{} // capacity 1: a server has told the time

	mu      sync.Mutex // guards the following
	floor   time.Time  // without what has passed since at
	at      time.Duration
	told    time.Time // by the last server, when elapsed was toldAt; zero: none has yet
	toldAt  time.Duration
	saved   time.Time     // what is in the file, or where steps begin
	savedAt time.Duration // when it was written by this process; negative: never
}

// Open returns a clock whose floor is built and what the file has, which an
// earlier run of Run wrote. A file that is missing is none; one that cannot be
// read is an error, and the clock is then good without it. system is the clock of
// the machine; nil is time.Now.
func Open(file string, built time.Time, system func() time.Time) (*Clock, error) {
	if system == nil {
		system = time.Now
	}
	begin := time.Now()
	c := &Clock{
		system: system, elapsed: func() time.Duration { return time.Since(begin) }, file: file,
		word: make(chan struct{}, 1), floor: built, saved: built, savedAt: -1,
	}
	saved, err := read(file)
	if saved.After(c.floor) {
		c.floor, c.saved = saved, saved
	}
	return c, err
}

func read(file string) (time.Time, error) {
	b, err := identity.ReadFileLimit(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339+"\n", string(b))
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s: it holds no time (%q)", file, strings.TrimSpace(string(b)))
	}
	return t, nil
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	now := c.system().Round(0) // wall time: what is compared with it was told by others
	c.mu.Lock()
	defer c.mu.Unlock()
	if low := c.floor.Add(c.elapsed() - c.at); now.Before(low) {
		return low
	}
	return now
}

// Told takes what a proven server says.
func (c *Clock) Told(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.elapsed()
	c.told, c.toldAt = now, at
	if now.After(c.floor.Add(at - c.at)) {
		c.floor, c.at = now, at
	}
	select {
	case c.word <- struct{}{}:
	default:
	}
}

// Off returns how far the clock of the machine is ahead of what the last server
// told (negative: behind); 0 if none has told anything.
func (c *Clock) Off() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told.IsZero() {
		return 0
	}
	return c.system().Round(0).Sub(c.told.Add(c.elapsed() - c.toldAt)).Round(time.Second)
}

// Run saves the floor when a server has told the time, and then every hour, until
// ctx is cancelled. What cannot be saved is logged.
func (c *Clock) Run(ctx context.Context, log *slog.Logger) error {
	timer := time.NewTimer(stepTime)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.word:
		case <-timer.C:
			timer.Reset(stepTime)
		}
		if err := c.save(); err != nil {
			log.Warn("the time is not kept for the next start", "error", err)
		}
	}
}

// save writes the next step of the floor, if it is time for one.
func (c *Clock) save() error {
	c.mu.Lock()
	next, due := c.stepLocked()
	c.mu.Unlock()
	if !due {
		return nil
	}
	return Save(c.file, next)
}

func (c *Clock) stepLocked() (time.Time, bool) {
	at := c.elapsed()
	if c.told.IsZero() || c.savedAt >= 0 && at-c.savedAt < stepTime {
		return time.Time{}, false
	}
	next := c.told.Add(at - c.toldAt)
	if most := c.saved.Add(maxStep); !c.saved.IsZero() && next.After(most) {
		next = most
	}
	if !next.After(c.saved) {
		return time.Time{}, false
	}
	c.saved, c.savedAt = next, at
	return next, true
}

// Save writes a floor as Open reads it.
func Save(file string, floor time.Time) error {
	return identity.ReplaceFile(file, []byte(floor.UTC().Format(time.RFC3339)+"\n"), 0o600)
}
