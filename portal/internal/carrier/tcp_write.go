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
