package path

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/leg"
)

// binding is the UDP leg of a session while somebody uses it: bound at the
// relay, bound anew when something has changed, and kept open.
//
// What keeps it open depends on whether a QUIC connection runs over it. If one
// does, silence asks the other portal, end to end, and finds out how long the
// networks hold. Until one does (somebody waits for a connection) nobody may be
// there to answer: then the leg is bound anew at every interval.
//
// One goroutine, run, sends all requests and Echoes.
type binding struct {
	leg    *Leg
	log    *slog.Logger
	ctx    context.Context // of run
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended

	packets chan []byte   // from the relay, for run
	poke    chan struct{} // something below has changed

	mu       sync.Mutex // guards the following
	endpoint *packet.Endpoint
	target   netip.AddrPort // of endpoint
	expect   func(*packet.Endpoint)
	look     bool // whether target is still the right one
	binder   *leg.Binder
	started  time.Time     // of the bind under way
	pending  bool          // bind anew after the one under way
	answered chan struct{} // closed when the relay has challenged the leg, or bound it
	mapped   netip.AddrPort
	bound    time.Time // last
	waits    int       // how often in a row it was bound anew without a connection
	keeper   *Keeper
	carried  int // QUIC connections
}

// bind returns the binding of the leg, for one more user; unbind gives it back. The TLS
// server says by expect, which is nil for the client, what it takes: the other portal's
// first packet may be there as soon as the leg is bound.
func (l *Leg) bind(client bool, expect func(*packet.Endpoint)) (*binding, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errLegClosed
	}
	if expect != nil {
		l.expect = expect
	}
	if l.binding == nil {
		b := &binding{
			leg: l, log: l.log, done: make(chan struct{}),
			packets: make(chan []byte, 16), poke: make(chan struct{}, 1),
			keeper: l.finder.Keeper(client), answered: make(chan struct{}), expect: l.expect,
		}
		if err := b.open(l.udpTarget()); err != nil {
			return nil, err
		}
		b.ctx, b.cancel = context.WithCancel(context.Background())
		go b.run()
		l.binding = b
	} else if expect != nil {
		l.binding.expectAnew(expect)
	}
	l.users++
	return l.binding, nil
}

func (l *Leg) unbind(b *binding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.binding != b {
		return // the leg was closed
	}
	if l.users--; l.users == 0 {
		b.close()
		l.binding = nil
	}
}

// unbindLater gives a binding back that is not needed any more, when the relay has had
// time to say where it sees the leg, if somebody wants to know.
func (l *Leg) unbindLater(b *binding) {
	if l.own || !l.finder.mirror.wanted() {
		l.unbind(b)
		return
	}
	time.AfterFunc(lookTime, func() { l.unbind(b) })
}

// udpTarget returns the relay's address to bind at: the first that this
// machine has a way to.
func (l *Leg) udpTarget() netip.AddrPort {
	for _, a := range l.udp {
		if conn, err := net.Dial("udp", a.String()); err == nil { // sends nothing
			conn.Close()
			return a
		}
	}
	return l.udp[0]
}

// open begins to bind at a relay's address.
func (b *binding) open(target netip.AddrPort) error {
	e, err := b.leg.finder.sockets.Open(target, b.leg.own, b)
	if err != nil {
		return err
	}
	id := leg.ID{Session: b.leg.session.ID, Leg: b.leg.session.Leg}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpoint, b.target = e, target
	b.binder = leg.NewBinder(id, b.leg.session.Secret, b.leg.finder.counter())
	b.started, b.pending = time.Now(), false
	b.askLocked()
	if b.expect != nil {
		b.expect(e)
	}
	return nil
}

// expectAnew has connections taken as expect says from now on.
func (b *binding) expectAnew(expect func(*packet.Endpoint)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expect = expect
	expect(b.endpoint)
}

// close ends run and gives the endpoint back.
func (b *binding) close() {
	b.cancel()
	<-b.done
	b.endpoint.Close()
}

// Packet implements packet.Owner.
func (b *binding) Packet(p []byte) {
	if len(p) > leg.MaxAnswerLen {
		return
	}
	select {
	case b.packets <- slices.Clone(p):
	default: // the relay says it again
	}
}

// Moved implements packet.Owner.
func (b *binding) Moved() { b.refresh() }

// refresh binds the leg anew.
func (b *binding) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.keeper.Disturb(now)
	b.look = true
	b.startLocked(now)
	b.wake()
}

const (
	// patience is for how long a bind under way is not given up for another: one
	// that is begun anew ever again would never be done.
	patience = 200 * time.Millisecond
	// longBind is how long a bind takes where the way to the relay was broken: a
	// silence has other reasons than NATs then.
	longBind = time.Second
)

func (b *binding) startLocked(now time.Time) {
	if _, bound := b.binder.Mapped(); !bound && now.Sub(b.started) < patience {
		b.pending = true
		return
	}
	b.binder.Start()
	b.started, b.pending = now, false
	b.askLocked()
}

// askLocked notes that an answer is to come. Who waits for one already waits for
// this one.
func (b *binding) askLocked() {
	select {
	case <-b.answered:
		b.answered = make(chan struct{})
	default:
	}
}

func (b *binding) wake() {
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// carries tells that QUIC connections have been made or have ended.
func (b *binding) carries(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.carried += n
	b.waits = 0
	b.keeper.Disturb(time.Now())
	b.wake()
}

// inUse reports whether QUIC runs over the leg: then it is held open, and the relay says
// where it sees it whenever that changes.
func (b *binding) inUse() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.carried > 0
}

func (b *binding) remote() netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.target
}

func (b *binding) run() {
	defer close(b.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	challenged := false // the relay has answered; what answers that is yet to be sent
	for {
		b.retarget()
		e, out, again := b.step(time.Now())
		for _, p := range out {
			e.Send(p)
		}
		if challenged {
			challenged = false
			b.mu.Lock()
			closeOnce(b.answered)
			b.mu.Unlock()
		}
		timer.Reset(time.Until(again))
		select {
		case <-b.ctx.Done():
			return
		case <-timer.C:
		case <-b.poke:
		case p := <-b.packets:
			if leg.IsSTUN(p) {
				challenged = b.take(p, time.Now())
			} else if answer := b.echo(p, time.Now()); answer != nil {
				e.Send(answer)
			}
		}
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// retarget goes to another of the relay's addresses if there is no way to the
// one in use any more.
func (b *binding) retarget() {
	b.mu.Lock()
	look, was, old := b.look, b.target, b.endpoint
	b.look = false
	b.mu.Unlock()
	if !look || len(b.leg.udp) < 2 {
		return
	}
	target := b.leg.udpTarget()
	if target == was {
		return
	}
	if err := b.open(target); err != nil {
		b.log.Warn("UDP leg not moved to another address of the relay", "address", target.String(), "error", err)
		return
	}
	b.log.Info("UDP leg moves to another address of the relay", "address", target.String())
	old.Close()
}

// step returns what to send now, and when to call again.
func (b *binding) step(now time.Time) (e *packet.Endpoint, out [][]byte, again time.Time) {
	own := b.leg.finder.memory.interval()
	b.mu.Lock()
	defer b.mu.Unlock()
	again = now.Add(own)
	if b.pending {
		if b.startLocked(now); b.pending {
			again = b.started.Add(patience)
		}
	}
	if _, bound := b.binder.Mapped(); bound {
		if b.carried > 0 {
			ask, anew, next := b.keeper.Step(now, b.endpoint.Heard(), b.endpoint.Sent())
			if anew {
				b.startLocked(now)
			}
			if ask != nil {
				out = append(out, ask.AppendTo(nil))
			}
			again = next
		} else if due := b.bound.Add(waiting(own, b.waits)); now.Before(due) {
			again = due
		} else {
			b.waits++
			b.startLocked(now)
		}
	}
	request, next := b.binder.Packet(now)
	if request != nil {
		out = append([][]byte{request}, out...)
	}
	if !next.IsZero() && next.Before(again) {
		again = next
	}
	return b.endpoint, out, again
}

// waiting is how long a leg that waits for a connection is left alone after so
// many times. What has not come for long may come a little later: the other
// portal has other ways to make itself heard, and holding a NAT open costs.
func waiting(own time.Duration, waits int) time.Duration {
	const same = 20
	return min(own<<min(waits/same, 8), max(own, steps[len(steps)-1]))
}

// take takes a packet of STUN. It reports whether it was the relay's answer to
// the request under way.
func (b *binding) take(p []byte, now time.Time) (answer bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.binder.Handle(p) {
		return false
	}
	b.leg.finder.heard(b.leg.Relay())
	mapped, bound := b.binder.Mapped()
	if !bound {
		return true
	}
	moved := b.mapped.IsValid() && mapped != b.mapped
	if tell := b.leg.finder.Renumbered; tell != nil && moved && mapped.Addr() != b.mapped.Addr() {
		tell()
	}
	b.mapped, b.bound = mapped, now
	if !b.leg.own {
		b.leg.finder.mirror.note(b.target, mapped, now)
	}
	b.keeper.Bound(moved)
	if now.Sub(b.started) > longBind {
		b.keeper.Disturb(now)
	}
	if moved {
		b.log.Info("UDP leg has another address", "address", mapped.String())
	}
	return true
}

// echo takes an Echo of the other portal and returns the answer, if it asks.
func (b *binding) echo(p []byte, now time.Time) (answer []byte) {
	e, err := leg.ParseEcho(p)
	if err != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	back := b.keeper.Take(e, now)
	if back == nil {
		return nil
	}
	return back.AppendTo(nil)
}
