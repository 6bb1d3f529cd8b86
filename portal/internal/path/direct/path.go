package direct

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

const (
	// maxLinks bounds the addresses from which a TLS server expects connections, and
	// expectTime is how long it does after an answer from there.
	maxLinks   = 4
	expectTime = 10 * time.Second
	// maxArrived bounds the connections that the peer has dialled and nobody has taken yet.
	maxArrived = 4
	// migrateTime is how often it is looked whether a connection has followed the peer to
	// another address.
	migrateTime = time.Second
	// lookAgain is how often relays are asked where they see this portal while nothing
	// direct carries.
	lookAgain = 5 * time.Minute
	// answersAtOnce bounds the answers to addresses that have not answered themselves, and
	// answerRefill is how soon one more may be given: the peer can have its probes seem
	// to come from anywhere.
	answersAtOnce = 160
	answerRefill  = 5 * time.Second
)

// ErrClosed is the error of a Path that was closed.
var ErrClosed = errors.New("the search for direct ways is over")

// Path is the search for direct ways of one tunnel, and those that it has found. Its
// methods are safe for concurrent use.
//
// One goroutine, run, sends what is due. What comes is taken by the readers of the
// sockets: a connection may follow right behind a probe.
type Path struct {
	Tunnel
	finder *Finder
	log    *slog.Logger
	own    probe.ID // in probes to this portal
	inbox  *packet.Inbox
	ctx    context.Context // of run
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	poke   chan struct{}
	stale  atomic.Bool // this portal's addresses may be others

	mu       sync.Mutex    // guards the following
	changed  chan struct{} // closed, and replaced, whenever a way has come or gone
	search   search
	here     bool             // the peer is on this machine
	given    []wire.Candidate // by the peer
	offered  []wire.Candidate
	told     bool // they are
	refused  []Refusal
	counter  uint32 // of the last probe sent
	window   probe.Window
	answers  bucket
	looked   time.Time
	tcp      tcp
	arrived  []*quic.Conn
	anew     bool           // a connection is to be made beside the one there is
	dialled  *pair          // last
	last     netip.AddrPort // that a carrier came up on
	lastMode string
}

func newPath(f *Finder, t Tunnel) *Path {
	p := &Path{
		Tunnel: t, finder: f, log: f.Log.With("peer", t.Peer), own: t.Keys.Own(t.Client),
		inbox: packet.NewInbox(), poke: make(chan struct{}, 1), changed: make(chan struct{}),
		search: search{client: t.Client, bounds: f.bounds(false)}, looked: time.Now(),
	}
	p.stale.Store(true)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.tasks.Add(1)
	return p
}

// renew has this portal's addresses looked at. It takes no lock: who replaces a socket
// calls it, which may be the goroutine of a connection whose end is waited for under the
// Path's lock.
func (p *Path) renew() {
	p.stale.Store(true)
	p.wake()
}

// Refresh has everything asked anew: the network may have changed, or the peer be silent.
func (p *Path) Refresh() {
	now := time.Now()
	p.mu.Lock()
	p.stale.Store(true)
	p.looked = now
	p.search.restart(now)
	p.restartTCPLocked(now)
	for _, x := range p.search.pairs {
		if x.way != nil && x.way.keeper != nil {
			x.way.keeper.Disturb(now)
		}
	}
	p.wake()
	p.mu.Unlock()
	p.finder.look()
}

// Replace has the TLS client make other connections of QUIC beside those there are, which are to
// be left, on the same ways. Those of TCP follow others by number (Of).
func (p *Path) Replace() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.anew = slices.ContainsFunc(p.search.pairs, (*pair).carries)
	p.tellLocked()
	p.wake()
}

func (p *Path) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// tellLocked has those who wait look again.
func (p *Path) tellLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Ready waits until there is an open way that no carrier uses yet, or, where one does,
// a clearly quicker one.
func (p *Path) Ready(ctx context.Context) error {
	return p.until(ctx, func() (bool, error) { return p.readyLocked(time.Now()), nil })
}

// until waits until ready, which is called under the lock whenever a way has come or gone, says so or
// fails.
func (p *Path) until(ctx context.Context, ready func() (bool, error)) error {
	for {
		p.mu.Lock()
		ok, err := ready()
		changed := p.changed
		p.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ctx.Done():
			return ErrClosed
		}
	}
}

func (p *Path) readyLocked(now time.Time) bool {
	if len(p.arrived)+len(p.tcp.waiting) > 0 {
		return true
	}
	return p.openLocked(now)
}

// openLocked reports whether there is a way of UDP to be used.
func (p *Path) openLocked(now time.Time) bool {
	if p.Client {
		return p.bestLocked(now) != nil
	}
	expects := false
	for _, x := range p.search.pairs {
		if x.carries() && !x.dead() {
			return false
		}
		expects = expects || x.way != nil && !x.carries()
	}
	return expects
}

// bestLocked returns the open pair to dial; nil: there is none.
func (p *Path) bestLocked(now time.Time) *pair {
	x := p.search.best(now)
	if x != nil || !p.anew {
		return x
	}
	again := func(x *pair) bool { return x.carries() && !x.dead() && !now.Before(x.until) }
	if i := slices.IndexFunc(p.search.pairs, again); i >= 0 {
		return p.search.pairs[i]
	}
	return nil
}

// Close gives everything up. Connections over direct ways must have been closed; those
// that have not hear nothing any more.
func (p *Path) Close() {
	p.mu.Lock() // what begins under it is waited for
	p.cancel()
	p.mu.Unlock()
	p.finder.remove(p)
	p.inbox.Close()
	p.tasks.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.search.pairs {
		x.drop()
	}
	for _, c := range p.arrived {
		c.CloseWithError(0, "")
	}
	p.arrived = nil
	p.dropTCPLocked()
}

func (p *Path) run() {
	defer p.tasks.Done()
	if !p.Client {
		p.tasks.Go(p.accept)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.offer()
		again := p.act(time.Now())
		timer.Reset(time.Until(again))
		select {
		case <-p.ctx.Done():
			return
		case <-timer.C:
		case <-p.poke:
		}
	}
}

// outgoing is a packet to be sent.
type outgoing struct {
	to netip.AddrPort
	b  []byte
}

// act sends what is due and returns when to call again.
func (p *Path) act(now time.Time) (again time.Time) {
	p.mu.Lock()
	p.search.carry(len(p.tcp.used) > 0 || slices.ContainsFunc(p.search.pairs, (*pair).carries), now)
	orders, again := p.search.step(now)
	again = earlier(again, p.knockLocked(now))
	var out []outgoing
	interval := p.finder.Paths.Interval()
	for _, o := range orders {
		out = append(out, p.packLocked(o.to, probe.Probe{Echo: leg.Echo{Token: o.token, Interval: interval}}))
	}
	if p.migrateLocked() {
		again = earlier(again, now.Add(migrateTime))
	}
	for _, x := range p.search.pairs {
		switch {
		case x.way == nil:
		case x.carries():
			ask, anew, next := x.way.keeper.Step(now, x.way.endpoint.Heard(), x.way.endpoint.Sent())
			if ask != nil {
				x.note(ask.Token, now)
				out = append(out, p.packLocked(x.addr, probe.Probe{Echo: *ask}))
			}
			if anew {
				p.search.lost(now)
				again = now
			}
			again = earlier(again, next)
		case now.Sub(x.answered) >= expectTime && !x.way.dialling:
			x.drop()
			p.tellLocked()
		default:
			again = earlier(again, x.answered.Add(expectTime))
		}
	}
	look := !p.search.carried && now.Sub(p.looked) >= lookAgain
	if look {
		p.looked = now
	}
	p.mu.Unlock()
	for _, o := range out {
		if port := p.finder.port(o.to.Addr()); port != nil {
			port.Send(o.b, o.to)
		}
	}
	if look {
		p.finder.look()
	}
	return again
}

// packLocked makes a packet of a probe.
func (p *Path) packLocked(to netip.AddrPort, m probe.Probe) outgoing {
	p.counter++
	if now := clockCounter(time.Now()); p.Lasting && int32(now-p.counter) > 0 {
		p.counter = now
	}
	if p.counter == 0 {
		p.counter++
	}
	m.Counter = p.counter
	return outgoing{to, m.AppendTo(nil, p.Keys.Own(!p.Client), p.Keys.Key)}
}

// take takes a probe that is proven to be of the tunnel. It is called by the readers of
// sockets.
func (p *Path) take(at *packet.Port, from netip.AddrPort, m probe.Probe) {
	for _, o := range p.taken(at, from, m, time.Now()) {
		at.Send(o.b, o.to)
	}
}

// taken is take, but for what is to be sent.
func (p *Path) taken(at *packet.Port, from netip.AddrPort, m probe.Probe, now time.Time) (out []outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || !p.freshLocked(m.Counter, now) {
		return nil
	}
	if m.Echo.Answer {
		p.answeredLocked(at, from, m, now)
	} else if p.search.ask(from, now) {
		out = p.answerLocked(from, m, now)
	}
	p.wake()
	return out
}

// answerLocked answers a probe, and asks back before: what the peer sends once it has the
// answer comes when this portal knows the way to be open, too.
func (p *Path) answerLocked(from netip.AddrPort, m probe.Probe, now time.Time) (out []outgoing) {
	interval := p.finder.Paths.Interval()
	answer := leg.Echo{Answer: true, Token: m.Echo.Token, Interval: interval}
	if x := p.search.find(from); x != nil {
		if o, due := p.search.probe(x, now); due {
			out = append(out, p.packLocked(from, probe.Probe{Echo: leg.Echo{Token: o.token, Interval: interval}}))
		}
		if x.carries() {
			answer = *x.way.keeper.Take(m.Echo, now)
		}
	}
	if p.mayAnswerLocked(from, now) {
		out = append(out, p.packLocked(from, probe.Probe{Echo: answer, Seen: from}))
	}
	return out
}

// mayAnswerLocked reports whether a probe from there is answered.
func (p *Path) mayAnswerLocked(from netip.AddrPort, now time.Time) bool {
	if x := p.search.find(from); x != nil && x.answers > 0 {
		return true
	}
	p.answers.settle(now, answerRefill)
	if p.answers.spent >= answersAtOnce {
		return false
	}
	p.answers.spent++
	return true
}

func (p *Path) answeredLocked(at *packet.Port, from netip.AddrPort, m probe.Probe, now time.Time) {
	was := netip.AddrPort{}
	if x := p.search.find(from); x != nil {
		was = x.seen
	}
	x := p.search.answer(from, m.Echo.Token, m.Seen, now)
	if x == nil {
		return
	}
	if x.seen != was {
		p.stale.Store(true)
	}
	if x.way != nil && x.way.keeper != nil {
		x.way.keeper.Bound(was.IsValid() && x.seen != was)
		x.way.keeper.Take(m.Echo, now)
	}
	if x.answers == 1 {
		p.log.Info("direct way found", "address", from.String(), "rtt", x.rtt)
	}
	if !p.Client && x.way == nil {
		p.expectLocked(at, x)
	}
	p.tellLocked()
}

// Relay implements peers.Leg: there is none.
func (p *Path) Relay() string { return "" }

// Mode implements peers.Leg.
func (p *Path) Mode() (mode string, addr netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsValid() {
		return "", netip.AddrPort{}
	}
	return p.lastMode, p.last
}

// Ways implements meeting.Leg. The TLS client dials what is open and has no carrier; the
// server takes whichever that is.
func (p *Path) Ways(connection uint16) (ways []path.Way, at []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tcp := &tcpWay{path: p, connection: connection}
	if !p.Client || p.openLocked(time.Now()) {
		ways = append(ways, &udpWay{path: p, connection: connection, beside: tcp})
	}
	if !p.Client || len(p.tcp.waiting) > 0 {
		ways = append(ways, tcp)
	}
	return ways, make([]time.Duration, len(ways))
}

// Again implements meeting.Leg.
func (p *Path) Again() (ways []path.Way, at []time.Duration) { return p.Ways(leg.Meeting) }

// Failed tells that no carrier came up: another way is to be tried first.
func (p *Path) Failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.dialled; x != nil {
		x.fail(time.Now())
		p.dialled = nil
	}
}
