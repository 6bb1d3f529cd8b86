// Package logs keeps what others can cause from flooding the log.
package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// burst records go through at once, and perSecond of them for ever.
	burst     = 100
	perSecond = 10
)

// Steady returns a logger that passes on at most a burst of records and then
// some per second, and says with the next one how many it has left out. It is
// for records whose number others decide: refused connections, for example.
// Loggers made from it with With count together.
func Steady(log *slog.Logger) *slog.Logger {
	return slog.New(handler{log.Handler(), &bucket{tokens: burst, filled: time.Now()}})
}

// handler is a slog.Handler with a bucket before it.
type handler struct {
	slog.Handler
	bucket *bucket
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	ok, left := h.bucket.take(r.Time)
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
	return handler{h.Handler.WithAttrs(attrs), h.bucket}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.bucket}
}

// bucket holds the records that may still pass.
type bucket struct {
	mu     sync.Mutex // guards the following
	tokens float64
	filled time.Time
	left   uint64 // out since the last that passed
}

// take takes a token, and returns how many records found none since the last
// one that did.
func (b *bucket) take(now time.Time) (ok bool, left uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.filled); passed > 0 {
		b.tokens = min(burst, b.tokens+passed.Seconds()*perSecond)
		b.filled = now
	}
	if b.tokens < 1 {
		b.left++
		return false, 0
	}
	b.tokens--
	left, b.left = b.left, 0
	return true, left
}
