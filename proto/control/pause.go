package control

import (
	"sync"
	"time"
)

// pauses are the silences that are tried, in order. Many NATs forget an idle
// TCP connection after 5 minutes or more, some after less (RFC 5382 section 5
// asks for 2 hours and 4 minutes); with the last, a half-open connection is
// found within 10 minutes still.
var pauses = [...]time.Duration{
	1 * time.Minute, 2 * time.Minute, 3 * time.Minute, KeepAlive, 5 * time.Minute,
	6 * time.Minute, 7*time.Minute + 30*time.Second, 9 * time.Minute,
}

// forgetBroken is how long a silence that broke a connection is not tried
// again: it may have been the server's machine, and not the network.
const forgetBroken = 7 * 24 * time.Hour

// Pauses learns for one network how long a connection through it may carry
// nothing before it is forgotten on the way. It begins with KeepAlive, takes
// the next longer silence each time one was survived, and a shorter one when a
// connection broke. It is safe for concurrent use.
type Pauses struct {
	changed func()

	mu      sync.Mutex // guards the following
	learned Learned
}

// Learned is what a Pauses knows.
type Learned struct {
	Held   time.Duration // the longest silence that was survived; 0: none yet
	Broken time.Duration // the shortest that was not; 0: none
	At     time.Time     // when that was
}

// NewPauses returns a Pauses that goes on from what was learned before. changed
// is called, without a lock held, when it has learned something.
func NewPauses(l Learned, changed func()) *Pauses {
	return &Pauses{learned: l, changed: changed}
}

// Learned returns what was learned.
func (p *Pauses) Learned() Learned {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.learned
}

// next returns the silence to try now.
func (p *Pauses) next(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := pauses[0]
	for _, d := range pauses {
		if !p.allowedLocked(now, d) {
			break
		}
		best = d
		if p.learned.Held == 0 && d >= KeepAlive || p.learned.Held > 0 && d > p.learned.Held {
			break
		}
	}
	return best
}

func (p *Pauses) allowedLocked(now time.Time, d time.Duration) bool {
	age := now.Sub(p.learned.At)
	return p.learned.Broken == 0 || d < p.learned.Broken || age < 0 || age >= forgetBroken
}

// held takes that a connection was alive after such a silence.
func (p *Pauses) held(d time.Duration) {
	p.mu.Lock()
	news := d > p.learned.Held
	if news {
		p.learned.Held = d
		if d >= p.learned.Broken {
			p.learned.Broken, p.learned.At = 0, time.Time{}
		}
	}
	p.mu.Unlock()
	if news {
		p.changed()
	}
}

// broke takes that a connection was dead after such a silence, and that
// another could be made at once.
func (p *Pauses) broke(now time.Time, d time.Duration) {
	p.mu.Lock()
	if p.allowedLocked(now, d) || d < p.learned.Broken {
		p.learned.Broken = d
	}
	p.learned.At = now
	if p.learned.Held >= p.learned.Broken {
		p.learned.Held = 0
		for _, shorter := range pauses {
			if shorter < p.learned.Broken {
				p.learned.Held = shorter
			}
		}
	}
	p.mu.Unlock()
	p.changed()
}
