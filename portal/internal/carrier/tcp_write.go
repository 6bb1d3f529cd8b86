package carrier

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// scratchLen is what small frames are gathered in: one TLS record.
	scratchLen = 16 << 10
	// smallData is up to how long a frame is copied to be gathered; a longer
	// one goes into records of its own without a copy.
	smallData = 4 << 10
	// maxRound is how many fresh streams get a turn before what is urgent is
	// looked at again.
	maxRound = 32
	// maxControl bounds the control frames that wait to be written. Only a
	// peer that asks and does not read lets so many wait.
	maxControl = 256 << 10
	// maxDatagrams and maxDatagramBytes bound the queue of datagrams: what is
	// older than that is of no use to its application.
	maxDatagrams     = 256
	maxDatagramBytes = 512 << 10
	// datagramTime is how long a datagram may wait: on a path that takes less than
	// the flows send, those that come out are fresh.
	datagramTime = 500 * time.Millisecond
)

// writer decides what is written next. In this order:
//
//	control   the carrier's own frames, and what Send was given
//	urgent    ACKs and RESETs of the streams
//	datagrams
//	fresh     streams that had little to send in their last turn, one frame each
//	bulk      the others, one frame each
//
// At least one bulk frame follows each round of the others, so nothing
// starves; and a keystroke waits for what is being written and one bulk frame
// at most. Nothing is queued here but names: a frame leaves its stream when its
// turn comes.
type writer struct {
	c    *tcpCarrier
	wake chan struct{} // the writer's goroutine takes over

	mu        sync.Mutex
	busy      bool     // somebody writes, or the goroutine was woken to
	shut      bool     // Close was called
	finished  bool     // close_notify is on its way
	last      *tcpLane // that asked last for its frames to be written
	lastAt    time.Time
	closer    *time.Timer
	err       error
	control   []byte
	urgent    []*tcpLane
	fresh     []*tcpLane
	bulk      []*tcpLane
	datagrams backlog

	// The following belong to whoever set busy.
	scratch []byte
	round   []*tcpLane
	pace    pace
}

func (w *writer) init(c *tcpCarrier) {
	w.c = c
	w.pace.init()
	c.tellSocket()
	w.wake = make(chan struct{}, 1)
}

// queueFirst queues what is written with whatever is sent next.
func (w *writer) queueFirst(frames []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.control = append(w.control, frames...)
}

// flushFirst writes what waits in the caller's goroutine, before Run.
func (w *writer) flushFirst() {
	w.mu.Lock()
	if len(w.control) == 0 {
		w.mu.Unlock()
		return
	}
	w.writeLocked()
}

// Send implements Conn.
func (c *tcpCarrier) Send(frames []byte) {
	if !c.writer.queueControl(frames, maxControl) {
		c.Abort(errUnread)
	}
}

// Try implements Conn.
func (c *tcpCarrier) Try(frames []byte) bool { return c.writer.queueControl(frames, maxControl/2) }

// queueControl queues control frames if no more than limit bytes wait with them.
func (w *writer) queueControl(frames []byte, limit int) bool {
	w.mu.Lock()
	if len(w.control)+len(frames) > limit {
		w.mu.Unlock()
		return false
	}
	w.control = append(w.control, frames...)
	w.startLocked()
	return true
}

// Datagram implements Conn.
func (c *tcpCarrier) Datagram(stream uint32, body []byte) bool {
	w := &c.writer
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		c.stats.dropped.Add(1)
		return false
	}
	frame := make([]byte, wire.FrameHeaderLen, wire.FrameHeaderLen+len(body))
	wire.FrameHeader{Type: wire.FrameDatagram, Length: len(body), Stream: stream}.PutTo(frame)
	lost, taken := w.datagrams.put(stream, append(frame, body...), time.Now())
	c.stats.dropped.Add(uint64(lost))
	w.startLocked()
	return taken
}

func (w *writer) queueLocked(l *tcpLane) {
	if l.queued || l.closed.Load() {
		return
	}
	l.queued = true
	if l.bulk {
		w.bulk = append(w.bulk, l)
	} else {
		w.fresh = append(w.fresh, l)
	}
}

// startLocked has the goroutine write, and unlocks.
func (w *writer) startLocked() {
	start := !w.busy && w.err == nil
	if start {
		w.busy = true
	}
	w.mu.Unlock()
	if start {
		w.wake <- struct{}{}
	}
}

// writeLocked writes one batch in the caller's goroutine if nobody else
// writes, and unlocks. What is left after it is for the writer's goroutine, so
// that a caller is not kept for the sake of others.
func (w *writer) writeLocked() {
	if w.busy || w.err != nil {
		w.mu.Unlock()
		return
	}
	w.busy = true
	w.mu.Unlock()
	if w.batch() {
		w.wake <- struct{}{}
	}
}

// run writes whenever it is woken, until done.
func (w *writer) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-w.wake:
		}
		runtime.Gosched() // streams that can run add their frames first
		for w.batch() {
		}
	}
}

// batch writes what waits, up to a batch, with one system call. It reports
// whether more waits; if not, it has given up the writing.
func (w *writer) batch() (more bool) {
	if err := w.collect(); err != nil {
		w.c.Abort(fmt.Errorf("write to the peer: %w", err))
	}
	w.mu.Lock()
	waits := len(w.control)+len(w.urgent)+w.datagrams.count+len(w.fresh)+len(w.bulk) > 0
	more = w.err == nil && waits
	last := w.err == nil && !waits && w.shut && !w.finished
	w.finished = w.finished || last
	w.busy = more || last
	w.mu.Unlock()
	if last {
		// The last frame is written: tell the peer that the end is meant.
		// If it cannot be told, it learns from the connection's end.
		_ = w.c.tls.CloseWrite()
		return w.batch()
	}
	return more
}

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
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return 0, nil
	}
	control, urgent := w.control, w.urgent
	w.control, w.urgent = nil, nil
	for _, l := range urgent {
		l.urgent = false
	}
	datagrams := w.takeDatagramsLocked()
	w.round = shift(w.round[:0], &w.fresh, maxRound)
	w.round = shift(w.round, &w.bulk, 1)
	for _, l := range w.round {
		l.queued = false
	}
	w.mu.Unlock()

	if len(control) > 0 {
		total += len(control)
		if err := w.put(control); err != nil {
			return total, err
		}
	}
	for _, l := range urgent {
		if l.closed.Load() {
			continue
		}
		at := len(w.scratch)
		w.scratch = l.src.Urgent(w.scratch)
		total += len(w.scratch) - at
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
		if l.closed.Load() {
			continue
		}
		// An ACK that could wait costs least in front of its stream's data.
		at := len(w.scratch)
		w.scratch = l.src.Urgent(w.scratch)
		total += len(w.scratch) - at
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
		if frame != nil {
			l.bulk = more || len(frame) > smallData
		}
		if more {
			w.queueLocked(l)
		}
		w.mu.Unlock()
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

// close queues the last frames, the first time, and has late called unless
// settle is called before.
func (w *writer) close(last []byte, late func()) {
	w.mu.Lock()
	if w.shut || w.err != nil {
		w.mu.Unlock()
		return
	}
	w.shut = true
	w.closer = time.AfterFunc(closeWait, late)
	w.control = append(w.control, last...)
	w.startLocked()
}

func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writer) closing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shut
}

// fail keeps the first error. It reports whether this is it.
func (w *writer) fail(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false
	}
	w.err = err
	return true
}

// settle forgets what waits: the connection is closed.
func (w *writer) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closer != nil {
		w.closer.Stop()
	}
	w.control, w.urgent, w.fresh, w.bulk, w.datagrams = nil, nil, nil, nil, backlog{}
}
