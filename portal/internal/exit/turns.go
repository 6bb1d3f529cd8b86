package exit

import (
	"container/heap"
	"sync"
	"time"
)

const (
	// burstTime is how much of a rate may pass at once after a rest.
	burstTime = 100 * time.Millisecond
	// turnTime is how much of a rate one turn of a stream is, within minTurn and
	// maxTurn.
	turnTime = 20 * time.Millisecond
	minTurn  = 1460
	maxTurn  = 64 << 10
)

// turns is the rate of a grant in one direction: a token bucket, whose tokens are
// bytes, before which streams wait in fair turns and datagrams do not wait.
//
// It is start-time fair queueing (Goyal, Vin, Cheng 1996): each stream has a tag
// that rises with its bytes, the smallest goes first, and who has rested begins
// with the tag of now. So a stream that says little does not wait behind the
// backlogs of others. (Package x/time/rate serves in the order of asking: with
// it a datagram never passes beside a stream that has always asked already, and
// two streams share by how often they ask.)
//
// Whoever has his turn may owe: only the next ones wait for that. So a datagram
// larger than the burst passes too, and what counts is right over time.
type turns struct {
	mu     sync.Mutex // guards the following, and all shares
	rate   float64    // bytes a second; 0: no limit
	level  float64    // bytes that may pass now; below zero they are owed
	filled time.Time
	now    float64 // the start tag of who was served last
	queue  queue
	timer  *time.Timer
}

// share is what a stream or a flow has had of turns.
type share struct{ tag float64 }

// waiter is a stream that waits for its turn.
type waiter struct {
	start float64
	bytes float64
	order uint64 // among equals the first comes first
	at    int    // in the queue; -1: it had its turn
	turn  chan struct{}
}

// setRate changes the rate, also for those that wait.
func (t *turns) setRate(rate uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == float64(rate) {
		return
	}
	t.fillLocked()
	if t.rate == 0 {
		t.level = float64(rate) * burstTime.Seconds()
	}
	t.rate = float64(rate)
	t.serveLocked()
}

// most returns how many bytes a stream should ask for at most.
func (t *turns) most() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == 0 {
		return maxTurn
	}
	return int(min(max(t.rate*turnTime.Seconds(), minTurn), maxTurn))
}

// wait waits until n bytes of a stream may pass, and reports false if done was
// closed before.
func (t *turns) wait(s *share, n int, done <-chan struct{}) bool {
	t.mu.Lock()
	start := t.chargeLocked(s, n)
	if t.rate == 0 || len(t.queue.list) == 0 && t.level > 0 {
		t.passLocked(start, float64(n))
		t.mu.Unlock()
		return true
	}
	t.queue.asked++
	w := &waiter{start: start, bytes: float64(n), order: t.queue.asked, turn: make(chan struct{})}
	heap.Push(&t.queue, w)
	t.serveLocked()
	t.mu.Unlock()
	select {
	case <-w.turn:
		return true
	case <-done:
		t.mu.Lock()
		defer t.mu.Unlock()
		if w.at >= 0 {
			heap.Remove(&t.queue, w.at)
		}
		return false
	}
}

// try reports whether a datagram may pass now. Where streams wait, it may if it
// would have its turn before theirs.
func (t *turns) try(s *share, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fillLocked()
	start := max(t.now, s.tag)
	switch {
	case t.rate == 0:
	case len(t.queue.list) == 0 && t.level > 0:
	case len(t.queue.list) > 0 && start <= t.queue.list[0].start && t.level > -t.rate*burstTime.Seconds():
	default:
		return false
	}
	s.tag = start + float64(n)
	t.passLocked(start, float64(n))
	return true
}

// chargeLocked raises a share's tag and returns where it was.
func (t *turns) chargeLocked(s *share, n int) (start float64) {
	t.fillLocked()
	start = max(t.now, s.tag)
	s.tag = start + float64(n)
	return start
}

func (t *turns) passLocked(start, n float64) {
	t.now = max(t.now, start)
	if t.rate > 0 {
		t.level -= n
	}
}

// fillLocked adds what has come since the last time.
func (t *turns) fillLocked() {
	now := time.Now()
	if t.rate > 0 && !t.filled.IsZero() {
		t.level = min(t.level+now.Sub(t.filled).Seconds()*t.rate, t.rate*burstTime.Seconds())
	}
	t.filled = now
}

// serveLocked gives turns as far as they go, and comes again for the next.
func (t *turns) serveLocked() {
	t.fillLocked()
	for len(t.queue.list) > 0 && (t.rate == 0 || t.level > 0) {
		w := heap.Pop(&t.queue).(*waiter)
		t.passLocked(w.start, w.bytes)
		close(w.turn)
	}
	if len(t.queue.list) == 0 {
		return
	}
	pause := time.Duration(-t.level/t.rate*float64(time.Second)) + 100*time.Microsecond
	if t.timer == nil {
		t.timer = time.AfterFunc(pause, t.serve)
	} else {
		t.timer.Reset(pause)
	}
}

func (t *turns) serve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serveLocked()
}

// queue is who waits, the smallest start first. It implements heap.Interface.
type queue struct {
	list  []*waiter
	asked uint64
}

func (q *queue) Len() int { return len(q.list) }

func (q *queue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if a.start != b.start {
		return a.start < b.start
	}
	return a.order < b.order
}

func (q *queue) Swap(i, j int) {
	q.list[i], q.list[j] = q.list[j], q.list[i]
	q.list[i].at, q.list[j].at = i, j
}

func (q *queue) Push(x any) {
	w := x.(*waiter)
	w.at = len(q.list)
	q.list = append(q.list, w)
}

func (q *queue) Pop() any {
	last := len(q.list) - 1
	w := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	w.at = -1
	return w
}
