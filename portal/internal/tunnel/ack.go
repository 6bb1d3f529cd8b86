package tunnel

import (
	"sync"
	"time"
)

// ackDelay is how long bytes may stay unacknowledged that do not make an ACK
// due. It is long enough that the ACK mostly goes with an answer, and short
// enough for a peer that is short of memory and keeps no more than a block: it
// still sends 6 MB/s.
const ackDelay = 10 * time.Millisecond

// ackTimer sends the ACKs that can wait: one timer for all streams.
type ackTimer struct {
	mu      sync.Mutex
	timer   *time.Timer
	pipes   []*pipe
	stopped bool
}

// add has p's ACK sent in a while. p's lock is held.
func (a *ackTimer) add(p *pipe) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return
	}
	a.pipes = append(a.pipes, p)
	if len(a.pipes) > 1 {
		return
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(ackDelay, a.send)
	} else {
		a.timer.Reset(ackDelay)
	}
}

func (a *ackTimer) send() {
	a.mu.Lock()
	pipes := a.pipes
	a.pipes = nil
	a.mu.Unlock()
	for _, p := range pipes {
		p.mu.Lock()
		p.ackWaits = false
		if p.at != nil && p.st.AckOwed() {
			p.at.lane.Urgent()
		}
		p.mu.Unlock()
	}
}

// stop ends the timer.
func (a *ackTimer) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.pipes = nil
	if a.timer != nil {
		a.timer.Stop()
	}
}
