package answer

import (
	"time"

	"github.com/netport/netport/proto/wire"
)

// quarantine holds the legs of closed flows for QuarantineTime, in which they
// serve no other session. Closing is in the order of time, so the queue is
// sorted.
type quarantine struct {
	legs  map[tuple]resting
	queue []tuple // each time that a leg began to rest
	head  int     // of the queue
}

type resting struct {
	session wire.SessionID
	until   time.Time
	turn    int // how many entries of the queue are this leg's
}

// holds reports whether the leg rests from a session other than this.
func (q *quarantine) holds(now time.Time, t tuple, session wire.SessionID) bool {
	r, ok := q.legs[t]
	return ok && now.Before(r.until) && r.session != session
}

func (q *quarantine) add(now time.Time, t tuple, session wire.SessionID, limit int) {
	q.legs[t] = resting{session, now.Add(QuarantineTime), q.legs[t].turn + 1}
	q.queue = append(q.queue, t)
	for len(q.queue)-q.head > limit {
		q.pop()
	}
}

// expire lets those go that have rested enough.
func (q *quarantine) expire(now time.Time) {
	for q.head < len(q.queue) {
		if now.Before(q.legs[q.queue[q.head]].until) {
			return // a leg that has rested anew holds up those behind it, no more
		}
		q.pop()
	}
}

// pop drops the oldest entry of the queue, and the leg with its last one.
func (q *quarantine) pop() {
	t := q.queue[q.head]
	r := q.legs[t]
	if r.turn--; r.turn == 0 {
		delete(q.legs, t)
	} else {
		q.legs[t] = r
	}
	if q.head++; q.head > len(q.queue)/2 {
		q.queue = append(q.queue[:0], q.queue[q.head:]...)
		q.head = 0
	}
}
