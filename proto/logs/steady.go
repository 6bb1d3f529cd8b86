// Package logs keeps what others can cause from flooding the log.
package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Rate is how many records pass: Burst at once, and one each Every for ever.
type Rate struct {
	Burst int
	Every time.Duration
}

var (
	// Often is for records of which each tells something: refused connections, for example.
	Often = Rate{100, 100 * time.Millisecond}
	// Seldom is for those that say the same again and again, as long as something is wrong.
	Seldom = Rate{1, time.Minute}
)

// Steady returns a logger that passes on records at a rate, and says with the next one how
// many it has left out. It is for records whose number others decide. Loggers made from it with
// With count together.
func Steady(log *slog.Logger, rate Rate) *slog.Logger {
	return slog.New(handler{log.Handler(), NewBudget(rate)})
}

// handler is a slog.Handler with a budget before it.
type handler struct {
	slog.Handler
	budget *Budget
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	ok, left := h.budget.Spend(r.Time)
	if !ok {
		return nil
	}
	if left > 0 {
		r.AddAttrs(slog.Uint64("left-out", left))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.budget}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.budget}
}

// Budget is what may still pass at a rate. It is safe for concurrent use.
type Budget struct {
	rate Rate

	mu    sync.Mutex // guards the following
	spent time.Time  // all that came back until then was spent
	left  uint64     // out since the last that passed
}

// NewBudget returns a Budget of which nothing is spent.
func NewBudget(rate Rate) *Budget { return &Budget{rate: rate} }

// Spend reports whether one more may pass now, and if so how many might not since the last one
// that did.
func (b *Budget) Spend(now time.Time) (ok bool, left uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := now.Add(-time.Duration(b.rate.Burst) * b.rate.Every)
	if b.spent.Before(from) || b.spent.After(now) { // or the clock was set back
		b.spent = from
	}
	if b.spent.Add(b.rate.Every).After(now) {
		b.left++
		return false, 0
	}
	b.spent = b.spent.Add(b.rate.Every)
	left, b.left = b.left, 0
	return true, left
}
