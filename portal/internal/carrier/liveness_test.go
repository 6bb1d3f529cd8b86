package carrier

import (
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Two that ask at once may send their questions in another order than they were
// noted in: the answer to the second comes first then, and both are told.
func TestWhoAskedIsToldThoughAnswersOvertake(t *testing.T) {
	var l liveness
	l.init()
	first, second := make(chan time.Duration, 1), make(chan time.Duration, 1)
	asked := time.Now()
	a, _ := l.ping(asked, first)
	b, _ := l.ping(asked, second)
	later := asked.Add(time.Second)
	l.pong(wire.TunnelPong(b), later)
	l.pong(wire.TunnelPong(a), later.Add(time.Second))
	for _, told := range []chan time.Duration{first, second} {
		select {
		case took := <-told:
			if took != time.Second {
				t.Errorf("told %v, want a second", took)
			}
		default:
			t.Error("one who asked is not told that the peer answers")
		}
	}
	if got := l.oldest(); !got.IsZero() {
		t.Errorf("a question of %v still waits", got)
	}
}

// A window that fills the queues of its own way makes the round trips longer, by
// which it may grow no further: twice the shortest counts at most.
func TestQueuesOfTheWayCallForNoLargerWindow(t *testing.T) {
	var l liveness
	l.init()
	answered := func(took time.Duration) {
		asked := time.Now()
		m, _ := l.ping(asked, nil)
		l.pong(wire.TunnelPong(m), asked.Add(took))
	}
	answered(100 * time.Millisecond)
	if got := l.windowRTT(); got != 100*time.Millisecond {
		t.Errorf("%v for windows on an idle way of 100 ms", got)
	}
	for range 20 {
		answered(time.Second)
	}
	if got := l.windowRTT(); got != 200*time.Millisecond {
		t.Errorf("%v for windows on a way of 100 ms whose queues are full", got)
	}
}
