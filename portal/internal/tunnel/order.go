package tunnel

import (
	"context"
	"sync"
	"time"
)

// orderTime is how long the Handler is not called for what the peer opened
// earlier and what has not arrived, or not begun, by then.
const orderTime = 50 * time.Millisecond

// order has what the peer opens begin in the order in which the peer opened
// it: an application with two connections may count on which of them its
// server gets first (iperf3 does). OPENs come over several carriers, and each
// is served by a goroutine of its own. What is late holds nothing up for longer
// than orderTime.
type order struct {
	mu      sync.Mutex // guards the following
	begun   uint32     // the highest number that has begun
	waiting map[uint32]chan struct{}
}

// wait returns when the number before id has begun, or it is time to go on
// without.
func (o *order) wait(ctx context.Context, id uint32) {
	o.mu.Lock()
	if id <= o.begun+2 {
		o.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	if o.waiting == nil {
		o.waiting = make(map[uint32]chan struct{})
	}
	o.waiting[id] = turn
	o.mu.Unlock()

	timer := time.NewTimer(orderTime)
	defer timer.Stop()
	select {
	case <-turn:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	o.mu.Lock()
	delete(o.waiting, id)
	o.mu.Unlock()
}

// begin notes that id has begun.
func (o *order) begin(id uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id <= o.begun {
		return
	}
	o.begun = id
	for next, turn := range o.waiting { // no more than maxPending
		if next <= id+2 {
			delete(o.waiting, next)
			close(turn)
		}
	}
}

// begunKey is of a context's function that Begun calls.
type begunKey struct{}

// WithBegun returns a context for OpenStream and OpenFlow, which call begun
// once what they open has its place in the order of all that is opened on the
// tunnel.
func WithBegun(ctx context.Context, begun func()) context.Context {
	return context.WithValue(ctx, begunKey{}, begun)
}

// Begun tells, in a call of a Handler with ctx, that the target is about to be
// dialled: the next one's turn has come. It may be called more than once, and
// need not be called where nothing is dialled.
func Begun(ctx context.Context) {
	if begun, ok := ctx.Value(begunKey{}).(func()); ok {
		begun()
	}
}
