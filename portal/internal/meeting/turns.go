package meeting

import (
	"context"
	"sync"
)

// turns lets whoever waits for the peer's next connection without knowing of
// any stand back while a carrier is made that both know of: the connection
// that comes then is meant for that one.
type turns struct {
	mu        sync.Mutex // guards the following
	takers    int
	free      chan struct{}      // closed when the last taker is done; nil: there is none
	interrupt context.CancelFunc // of who stands; nil: nobody does
}

// take interrupts who stands. done ends the turn.
func (t *turns) take() (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.takers++
	if t.free == nil {
		t.free = make(chan struct{})
	}
	if t.interrupt != nil {
		t.interrupt()
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.takers--; t.takers == 0 {
			close(t.free)
			t.free = nil
		}
	}
}

// stand waits until nobody has a turn and returns a context that ends when
// somebody takes one. Only one may stand at a time.
func (t *turns) stand(ctx context.Context) (turn context.Context, done func(), err error) {
	for {
		t.mu.Lock()
		free := t.free
		if free == nil {
			turn, cancel := context.WithCancel(ctx)
			t.interrupt = cancel
			t.mu.Unlock()
			return turn, func() {
				t.mu.Lock()
				t.interrupt = nil
				t.mu.Unlock()
				cancel()
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}
