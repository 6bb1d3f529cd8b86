// Package turns lets one operation at a time use a device, and lets nobody wait for it
// without bound: a device that hangs costs each caller its time and no more.
package turns

import (
	"errors"
	"sync"
	"time"
)

// ErrTime is that an operation, or those before it, took too long.
var ErrTime = errors.New("it does not answer in time")

// maxQueue bounds the operations that wait: far more handshakes than a portal has at
// once.
const maxQueue = 4096

// Turns takes operations in the order in which they come. Its zero value works.
type Turns struct {
	// Idle, if it is set, is called when nobody waits any more, between operations.
	Idle func()

	mu      sync.Mutex // guards the following
	queue   []*turn
	working bool // a goroutine runs what is queued
}

type turn struct {
	f    func() error
	end  time.Time  // nobody waits any longer
	done chan error // capacity 1
}

// Do runs f when its turn has come, and returns what it returns, or ErrTime after
// limit. f then may go on, or never begin; no other begins before it has ended.
func (t *Turns) Do(limit time.Duration, f func() error) error {
	own := &turn{f: f, end: time.Now().Add(limit), done: make(chan error, 1)}
	t.mu.Lock()
	if len(t.queue) == maxQueue {
		t.mu.Unlock()
		return ErrTime
	}
	t.queue = append(t.queue, own)
	if !t.working {
		t.working = true
		go t.work()
	}
	t.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-own.done:
		return err
	case <-timer.C:
		return ErrTime
	}
}

// work runs what is queued, and ends when nothing is: until then somebody waits for it.
func (t *Turns) work() {
	for idle := false; ; {
		t.mu.Lock()
		if len(t.queue) == 0 && (idle || t.Idle == nil) {
			t.working = false
			t.mu.Unlock()
			return
		}
		if len(t.queue) == 0 {
			t.mu.Unlock()
			t.Idle()
			idle = true
			continue
		}
		next := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		idle = false
		if time.Now().Before(next.end) {
			next.done <- next.f()
		}
	}
}
