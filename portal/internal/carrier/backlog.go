package carrier

import "time"

// backlog is the datagrams of flows that wait to be sent. Those of one flow
// stay in order; flows take turns, so that none waits behind another's flood.
// Where all of it is full, the flow that has most of it loses its oldest: that is
// of least use to its application.
type backlog struct {
	flows map[uint32]*queue
	turns []*queue // of the flows that have something, the next first
	count int      // datagrams
	bytes int      // what they cost
}

// cost is what a datagram counts for: one without a byte is work, too.
func cost(b []byte) int { return len(b) + 64 }

type queue struct {
	stream uint32
	list   []waiting
	bytes  int
}

type waiting struct {
	b  []byte
	at time.Time // since when
}

// put takes a datagram. It returns how many found no room, and whether b is not
// one of them.
func (l *backlog) put(stream uint32, b []byte, now time.Time) (lost int, taken bool) {
	q := l.flows[stream]
	had := 0
	if q != nil {
		had = q.bytes
	}
	for l.count >= maxDatagrams || l.bytes+cost(b) > maxDatagramBytes {
		lost++
		most := l.most()
		if most == nil || most == q || most.bytes <= had+cost(b) {
			return lost, false
		}
		l.pop(most)
	}
	if q = l.flows[stream]; q == nil {
		q = &queue{stream: stream}
		if l.flows == nil {
			l.flows = make(map[uint32]*queue)
		}
		l.flows[stream] = q
		l.turns = append(l.turns, q)
	}
	q.list = append(q.list, waiting{b, now})
	q.bytes += cost(b)
	l.count++
	l.bytes += cost(b)
	return lost, true
}

// most returns the flow that has most.
func (l *backlog) most() (most *queue) {
	for _, q := range l.turns {
		if most == nil || q.bytes > most.bytes {
			most = q
		}
	}
	return most
}

// pop takes the oldest datagram of a flow, which keeps its turn: one that has
// none left loses it when it comes.
func (l *backlog) pop(q *queue) waiting {
	w := q.list[0]
	q.list[0] = waiting{}
	q.list = q.list[1:]
	q.bytes -= cost(w.b)
	l.count--
	l.bytes -= cost(w.b)
	return w
}

// next takes the datagram whose turn it is; ok is false if there is none. late
// is how many had waited for too long and were dropped.
func (l *backlog) next(now time.Time) (stream uint32, b []byte, late int, ok bool) {
	for len(l.turns) > 0 {
		q := l.turns[0]
		l.turns[0] = nil
		l.turns = l.turns[1:]
		for len(q.list) > 0 && !ok {
			w := l.pop(q)
			if ok = now.Sub(w.at) <= datagramTime; ok {
				b = w.b
			} else {
				late++
			}
		}
		if len(q.list) == 0 {
			delete(l.flows, q.stream)
		} else {
			l.turns = append(l.turns, q)
		}
		if ok {
			return q.stream, b, late, true
		}
	}
	l.turns = nil
	return 0, nil, late, false
}
