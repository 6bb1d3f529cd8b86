package carrier

import (
	"time"
)

// collect takes frames in the writer's order and writes them.
func (w *writer) collect() error {
	c := w.c
	c.socket.cork()
	if w.scratch == nil {
		w.scratch = make([]byte, 0, scratchLen)
	}
	total := 0
	for limit := batchTurns * c.Turn(); total < limit; {
		n, err := w.turn()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		total += n
	}
	if err := w.gathered(); err != nil {
		return err
	}
	c.stats.sent.Add(uint64(total))
	start := time.Now()
	err := c.socket.flush()
	w.pace.flushed(total, time.Since(start))
	c.tellSocket()
	return err
}

// turn writes what is urgent, a round of the fresh streams, and one frame of a
// bulk stream. It returns how many bytes that were.
func (w *writer) turn() (total int, err error) {
	control, urgent, datagrams, ok := w.take()
	if !ok {
		return 0, nil
	}
	if len(control) > 0 {
		total += len(control)
		if err := w.put(control); err != nil {
			return total, err
		}
	}
	for _, l := range urgent {
		total += w.gather(l)
		if len(w.scratch) > scratchLen-smallData {
			if err := w.gathered(); err != nil {
				return total, err
			}
		}
	}
	for _, d := range datagrams {
		total += len(d)
		if err := w.put(d); err != nil {
			return total, err
		}
	}
	if len(urgent)+len(datagrams)+len(w.round) > 0 {
		w.c.live.used(0)
	}
	for _, l := range w.round {
		n, err := w.putLane(l)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// take takes what waits for this turn, the lanes of which are in w.round then. It reports false
// if the carrier has died.
func (w *writer) take() (control []byte, urgent []*tcpLane, datagrams [][]byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, nil, nil, false
	}
	control, urgent = w.control, w.urgent
	w.control, w.urgent = nil, nil
	for _, l := range urgent {
		l.urgent = false
	}
	datagrams = w.takeDatagramsLocked()
	w.round = shift(w.round[:0], &w.fresh, maxRound)
	w.round = shift(w.round, &w.bulk, 1)
	for _, l := range w.round {
		l.queued = false
	}
	return control, urgent, datagrams, true
}

// gather adds a lane's urgent frames to what is gathered, and returns their length.
func (w *writer) gather(l *tcpLane) int {
	if l.closed.Load() {
		return 0
	}
	at := len(w.scratch)
	w.scratch = l.src.Urgent(w.scratch)
	return len(w.scratch) - at
}

// putLane writes a lane's next frame. An ACK that could wait costs least in front of its
// stream's data.
func (w *writer) putLane(l *tcpLane) (total int, err error) {
	if l.closed.Load() {
		return 0, nil
	}
	total = w.gather(l)
	frame, more := l.src.Next()
	if frame != nil {
		total += len(frame)
		err := w.put(frame)
		l.src.Wrote()
		if err != nil {
			return total, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if frame != nil {
		l.bulk = more || len(frame) > smallData
	}
	if more {
		w.queueLocked(l)
	}
	return total, nil
}

// shift moves up to n lanes from the front of a queue to the end of to.
func shift(to []*tcpLane, queue *[]*tcpLane, n int) []*tcpLane {
	q := *queue
	n = min(n, len(q))
	to = append(to, q[:n]...)
	rest := copy(q, q[n:])
	clear(q[rest:])
	*queue = q[:rest]
	return to
}

// put writes a frame: a small one is gathered with its neighbours.
func (w *writer) put(frame []byte) error {
	if len(frame) <= smallData {
		if len(w.scratch)+len(frame) > scratchLen {
			if err := w.gathered(); err != nil {
				return err
			}
		}
		w.scratch = append(w.scratch, frame...)
		return nil
	}
	if err := w.gathered(); err != nil {
		return err
	}
	_, err := w.c.tls.Write(frame)
	return err
}

// gathered writes the small frames.
func (w *writer) gathered() error {
	if len(w.scratch) == 0 {
		return nil
	}
	_, err := w.c.tls.Write(w.scratch)
	w.scratch = w.scratch[:0]
	return err
}

// takeDatagramsLocked takes datagrams up to a fair part of a batch.
func (w *writer) takeDatagramsLocked() (taken [][]byte) {
	if w.datagrams.count == 0 {
		return nil
	}
	now := time.Now()
	for bytes := 0; bytes < batchLen/4; {
		_, b, late, ok := w.datagrams.next(now)
		w.c.stats.dropped.Add(uint64(late))
		if !ok {
			break
		}
		taken = append(taken, b)
		bytes += len(b)
	}
	return taken
}
