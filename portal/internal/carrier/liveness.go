package carrier

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// askEvery is the interval of PINGs while an answer is owed.
	askEvery = 5 * time.Second
	// askIdle is the interval on a carrier that carries nothing. It keeps
	// the state of NATs and firewalls on the way, most of which forget an
	// idle TCP connection after 5 minutes or more. The TLS client asks; the
	// server only when it was not asked. So it costs about 90 KB a day,
	// headers of TLS and TCP included.
	askIdle       = 280 * time.Second
	askIdleServer = askIdle + 30*time.Second
	// maxUnanswered is how many intervals a PING may stay unanswered while
	// nothing else arrives: a path that is broken for 10 s, in one direction or
	// both, must not end the carrier.
	maxUnanswered = 3
)

// liveness measures the round trip and finds out that the peer is gone. A slow
// application is no dead peer: only a PING that nothing answers is.
type liveness struct {
	rtt    atomic.Int64 // smoothed, in nanoseconds
	least  atomic.Int64 // the shortest so far, in nanoseconds
	last   atomic.Int64 // when the last PING left, Unix nanoseconds
	heard  atomic.Bool  // a frame came since the last look
	asked  atomic.Bool  // the peer's PING came since the last look
	busy   atomic.Bool  // a frame other than PING and PONG came or left since
	asleep atomic.Bool  // the watch looks only when the carrier was idle for long
	wake   chan struct{}
	ended  chan struct{} // the carrier is dead
	end    func()        // closes ended

	mu      sync.Mutex
	next    uint64               // token of the next PING; starts at random
	sent    map[uint64]time.Time // PINGs without an answer
	waiting map[uint64]chan time.Duration
}

// measureEvery is how often the round trip is measured while a stream's window
// depends on it. A path that fills, or a machine that is busy, makes it longer
// by orders of magnitude from one moment to the next.
const measureEvery = 100 * time.Millisecond

// maxPings bounds the PINGs under way; older ones are given up.
const maxPings = 64

func (l *liveness) init() {
	var b [8]byte
	rand.Read(b[:])
	l.next = binary.BigEndian.Uint64(b[:])
	l.sent = make(map[uint64]time.Time)
	l.waiting = make(map[uint64]chan time.Duration)
	l.wake = make(chan struct{}, 1)
	l.ended = make(chan struct{})
	l.end = sync.OnceFunc(func() { close(l.ended) })
}

// ping returns the next PING and remembers when it left.
func (l *liveness) ping(now time.Time) wire.TunnelPing {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last.Store(now.UnixNano())
	l.next++
	l.sent[l.next] = now
	delete(l.sent, l.next-maxPings)
	return wire.TunnelPing{Token: l.next}
}

// WindowRTT implements Conn. A window that is too
// large fills the sockets on the way, and that makes the measured round trip
// longer: without a bound it would call for a larger window for ever. A carrier
// stays on one path, so the shortest stays true.
func (c *carrier) WindowRTT() time.Duration {
	return time.Duration(min(c.live.rtt.Load(), 4*c.live.least.Load()))
}

// Measure implements Conn.
func (c *carrier) Measure(now time.Time) {
	last := c.live.last.Load()
	if now.UnixNano()-last < int64(measureEvery) || !c.live.last.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	c.send(wire.AppendFrame(nil, 0, c.live.ping(now)))
}

// pong takes an answer. One that nobody asked for says nothing.
func (l *liveness) pong(m wire.TunnelPong, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.sent[m.Token]
	if !ok {
		return
	}
	delete(l.sent, m.Token)
	took := max(now.Sub(at), time.Microsecond)
	if old := l.least.Load(); old == 0 || int64(took) < old {
		l.least.Store(int64(took))
	}
	if old := l.rtt.Load(); old == 0 {
		l.rtt.Store(int64(took))
	} else {
		l.rtt.Store(old + (int64(took)-old)/2)
	}
	if ch := l.waiting[m.Token]; ch != nil {
		delete(l.waiting, m.Token)
		ch <- took
	}
}

// used notes that a frame other than PING and PONG left, and wakes the watch.
func (l *liveness) used() {
	if !l.busy.Load() {
		l.busy.Store(true)
	}
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// watch asks whether the peer lives: at every look while frames are carried or
// an answer is owed, else rarely.
func (c *carrier) watch(done <-chan struct{}) {
	l := &c.live
	unanswered := 1 // the PING that went with HELLO
	idle := askIdle
	if !c.cfg.Client {
		idle = askIdleServer
	}
	timer := time.NewTimer(askEvery)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-l.wake:
			timer.Reset(askEvery)
			continue
		case <-timer.C:
		}
		heard, busy := l.heard.Swap(false), l.busy.Swap(false)
		if heard {
			unanswered = 0
		}
		rest := !l.asleep.Swap(false) || l.asked.Load()
		l.asked.Store(false)
		switch {
		case !heard && unanswered >= maxUnanswered:
			c.abort(errSilent)
			return
		case !busy && unanswered == 0 && rest:
			l.asleep.Store(true)
			// A frame may have left since Swap, when nobody was asleep.
			if !l.busy.Load() || !l.asleep.CompareAndSwap(true, false) {
				timer.Reset(idle)
				continue
			}
		}
		c.send(wire.AppendFrame(nil, 0, l.ping(time.Now())))
		unanswered++
		timer.Reset(askEvery)
	}
}

// Ping implements Conn.
func (c *carrier) Ping(ctx context.Context) (time.Duration, error) {
	ch := make(chan time.Duration, 1)
	m := c.live.ping(time.Now())
	c.live.mu.Lock()
	c.live.waiting[m.Token] = ch
	c.live.mu.Unlock()
	defer func() {
		c.live.mu.Lock()
		delete(c.live.waiting, m.Token)
		c.live.mu.Unlock()
	}()
	c.send(wire.AppendFrame(nil, 0, m))
	select {
	case took := <-ch:
		return took, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.live.ended:
		return 0, errDied
	}
}
