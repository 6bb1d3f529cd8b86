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
	// idleTCP is the interval of PINGs on a carrier that carries nothing. It
	// keeps the state of NATs and firewalls on the way, most of which forget an
	// idle TCP connection after 5 minutes or more. The TLS client asks; the
	// server only when it was not asked. So it costs about 90 KB a day,
	// headers of TLS and TCP included.
	idleTCP = 280 * time.Second
	// idleUDP is the interval where nothing is known of the NAT: many forget UDP
	// after 30 seconds.
	idleUDP = 15 * time.Second
	// idleServer is how much longer the TLS server waits before it asks, and no more
	// than a third of what the client waits.
	idleServer = 30 * time.Second
	// measureEvery is how often the round trip is measured while a stream's
	// window depends on it. A path that fills, or a machine that is busy, makes it
	// longer by orders of magnitude from one moment to the next.
	measureEvery = 100 * time.Millisecond
	// maxPings bounds the PINGs that wait for their answers.
	maxPings = 64
	// fullPacket is from how many bytes on frames make a packet of a size that
	// the path may not take.
	fullPacket = 1000
	// fillPacket is how much PAD fills a packet of any size that quic-go uses, and
	// a segment of any path to the internet.
	fillPacket = 1452
)

// liveness measures the round trip and finds out that the peer is gone. A slow
// application is no dead peer: only a PING that nothing answers is.
//
// What is called for each frame only sets flags; the watch looks at them.
type liveness struct {
	rtt   atomic.Int64 // smoothed, in nanoseconds
	least atomic.Int64 // the shortest so far, in nanoseconds
	last  atomic.Int64 // when the last PING left, Unix nanoseconds

	heard    flag        // a frame came since the last look
	answered flag        // a PONG or an ACK did
	left     flag        // frames that fill a packet left
	busy     flag        // one came or left
	asked    flag        // the peer's PING came
	doubted  flag        // Doubt was called
	asleep   atomic.Bool // the watch looks only when the carrier was idle for long
	wake     chan struct{}
	ended    chan struct{} // the carrier is dead
	end      func()        // closes ended

	mu      sync.Mutex
	next    uint64    // token of the next PING; starts at random
	waiting []asking  // in the order they were sent
	quiet   time.Time // what the last look found that found the peer silent
}

// asking is a PING that waits for its PONG.
type asking struct {
	token uint64
	at    time.Time
	tell  chan<- time.Duration // nil: nobody waits
}

// flag is a bool that is set often and looked at rarely.
type flag struct{ atomic.Bool }

func (f *flag) set() {
	if !f.Load() {
		f.Store(true)
	}
}

func (f *flag) take() bool { return f.Load() && f.Swap(false) }

func (l *liveness) init() {
	var b [8]byte
	rand.Read(b[:])
	l.next = binary.BigEndian.Uint64(b[:])
	l.wake = make(chan struct{}, 1)
	l.ended = make(chan struct{})
	l.end = sync.OnceFunc(func() { close(l.ended) })
}

// ping returns the next PING and remembers when it left; false if too many wait
// already.
func (l *liveness) ping(now time.Time, tell chan<- time.Duration) (wire.TunnelPing, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= maxPings {
		return wire.TunnelPing{}, false
	}
	l.last.Store(now.UnixNano())
	l.next++
	l.waiting = append(l.waiting, asking{l.next, now, tell})
	l.attend()
	return wire.TunnelPing{Token: l.next}, true
}

// pong takes an answer. One that nobody asked for says nothing. Answers come in
// the order in which the questions were sent, so older ones are taken for
// answered with it. That may not be the order in which they were noted, where two
// ask at once: the answer to an older one may yet come, and says nothing then.
func (l *liveness) pong(m wire.TunnelPong, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, a := range l.waiting {
		if a.token != m.Token {
			continue
		}
		took := max(now.Sub(a.at), time.Microsecond)
		if old := l.least.Load(); old == 0 || int64(took) < old {
			l.least.Store(int64(took))
		}
		if old := l.rtt.Load(); old == 0 {
			l.rtt.Store(int64(took))
		} else {
			l.rtt.Store(old + (int64(took)-old)/2)
		}
		for _, asked := range l.waiting[:i+1] {
			if asked.tell != nil {
				asked.tell <- took
			}
		}
		l.waiting = append(l.waiting[:0], l.waiting[i+1:]...)
		l.answered.set()
		return
	}
}

// oldest is when the oldest PING left that waits for its answer; zero: none.
func (l *liveness) oldest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return time.Time{}
	}
	return l.waiting[0].at
}

// used notes that n bytes of streams or flows left at once, and wakes the watch.
func (l *liveness) used(n int) {
	if n >= fullPacket {
		l.left.set()
	}
	l.busy.set()
	l.attend()
}

// attend has the watch look if it rests: an answer is owed.
func (l *liveness) attend() {
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		l.rouse()
	}
}

// rouse has the watch look up from its rest.
func (l *liveness) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Doubt implements Conn.
func (c *carrier) Doubt() {
	c.live.doubted.set()
	c.live.rouse()
}

// Quiet implements Conn.
func (c *carrier) Quiet() time.Time {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	return c.live.quiet
}

// LeastRTT implements Conn.
func (c *carrier) LeastRTT() time.Duration { return time.Duration(c.live.least.Load()) }

// WindowRTT implements Conn. A window that is too large fills the queues on the
// way, and that makes the measured round trip longer: without a bound it would
// call for a larger window for ever, and with one of four times the shortest it
// still did on a way between two processors, where a stream's 2 MB came to 8. A
// carrier stays on one path, so the shortest stays true.
func (c *carrier) WindowRTT() time.Duration { return c.live.windowRTT() }

func (l *liveness) windowRTT() time.Duration {
	return time.Duration(min(l.rtt.Load(), 2*l.least.Load()))
}

// Measure implements Conn.
func (c *carrier) Measure(now time.Time) {
	last := c.live.last.Load()
	if now.UnixNano()-last < int64(measureEvery) || !c.live.last.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	c.ask(now, false)
}

// ask sends a PING, if fill in such a way that it comes through only if packets
// of full size do.
func (c *carrier) ask(now time.Time, fill bool) {
	m, ok := c.live.ping(now, nil)
	if !ok {
		return
	}
	var b []byte
	if fill {
		b = wire.AppendFrame(b, 0, wire.Pad{Length: fillPacket})
	}
	c.send(wire.AppendFrame(b, 0, m))
}

// Ping implements Conn.
func (c *carrier) Ping(ctx context.Context) (time.Duration, error) {
	tell := make(chan time.Duration, 1)
	m, ok := c.live.ping(time.Now(), tell)
	if !ok {
		return 0, errSilent
	}
	c.send(wire.AppendFrame(nil, 0, m))
	select {
	case took := <-tell:
		return took, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.live.ended:
		return 0, errDied
	}
}

// watch looks whether the peer lives: twice a second while frames are carried or
// an answer is owed, else rarely. It aborts the carrier when the peer is dead.
func (c *carrier) watch(done <-chan struct{}, h Handler) {
	l := &c.live
	v := vigil{askedAt: time.Now()} // the PING that went with HELLO
	v.begin(v.askedAt, askEvery)
	timer := time.NewTimer(askEvery)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-l.wake:
			now, wait := time.Now(), askEvery
			l.asleep.Store(false)
			if l.doubted.take() {
				c.ask(now, true)
				wait = v.doubt(now, c.RTT())
			} else {
				v.begin(now, wait)
			}
			timer.Reset(wait)
			continue
		case <-timer.C:
		}
		now, was := time.Now(), v.silent
		f := v.look(now, sight{
			heard: l.heard.take(), answered: l.answered.take(), asked: l.asked.take(), busy: l.busy.take(), left: l.left.take(),
			rested: l.asleep.Swap(false), waiting: l.oldest(), rtt: c.RTT(),
		})
		if f.dead {
			c.abort(errSilent)
			return
		}
		if f.silent {
			l.mu.Lock()
			l.quiet = f.quiet
			l.mu.Unlock()
		}
		stuck := c.still != nil && (f.silent || was) && c.still(f.silent)
		if f.silent != was || stuck {
			h.Silent(f.silent)
		}
		switch {
		case f.rest:
			f.next = c.rest(&v, now)
		case f.ask:
			// On TCP a PING comes behind what fills segments anyway.
			c.ask(now, f.fill && c.kind == wire.CarrierQUIC)
		}
		timer.Reset(f.next)
	}
}

// rest returns for how long the watch need not look: askEvery if a frame has left
// meanwhile.
func (c *carrier) rest(v *vigil, now time.Time) time.Duration {
	c.live.asleep.Store(true)
	wait := askEvery
	// A frame may have left since, when nobody was asleep.
	if !c.live.busy.Load() || !c.live.asleep.CompareAndSwap(true, false) {
		wait = c.cfg.Idle()
		if !c.cfg.Client {
			wait += min(idleServer, wait/3)
		}
	}
	v.begin(now, wait)
	return wait
}
