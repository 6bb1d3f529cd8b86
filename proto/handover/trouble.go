//go:build linux

package handover

import (
	"log/slog"
	"sync"
	"time"
)

// sayEvery is how often a Trouble speaks.
const sayEvery = time.Minute

// Trouble logs what keeps connections from being handed over: at most once a minute, as
// it may be each of them. The zero Trouble is ready to use.
type Trouble struct {
	mu   sync.Mutex // guards the following
	said time.Time
	more int // times since then
}

// Warn logs it, and how often it came unsaid before.
func (t *Trouble) Warn(log *slog.Logger, message string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.said.IsZero() && now.Sub(t.said) < sayEvery {
		t.more++
		return
	}
	log.Warn(message, "error", err, "unsaid_before", t.more)
	t.said, t.more = now, 0
}
