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
