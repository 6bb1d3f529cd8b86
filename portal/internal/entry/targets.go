package entry

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

const (
	// offerTime is how long a target has to take a connection that another could
	// take as well: a little more than an exit takes for a dial.
	offerTime = 12 * time.Second
	// A target that has failed is passed over for three times as long as its
	// failure took, within leastRest and mostRest: whoever comes does not wait for
	// the same again, and finds the target soon when it is back. Where its portal
	// was not reached it is leastRest: whether it is there is known at once.
	leastRest = time.Second
	mostRest  = 30 * time.Second
	// lostTime is how long a portal that could be reached may be out of reach while
	// a connection is offered to it.
	lostTime = 500 * time.Millisecond
)

// target is one of the targets of a listener. The forward's lock guards it.
type target struct {
	pair    grants.Pair
	current grant.Grant
	rest    time.Time // it is passed over until then
	failed  string    // why it was last; empty: it works
}

func newTarget(g grant.Grant) *target { return &target{pair: grants.PairOf(g.Permission), current: g} }

// grant takes a grant, of a target there is or of a new one.
func (f *forward) grant(g grant.Grant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair := grants.PairOf(g.Permission)
	if i := slices.IndexFunc(f.targets, func(t *target) bool { return t.pair == pair }); i >= 0 {
		f.targets[i].current = g
	} else {
		f.targets = append(f.targets, newTarget(g))
	}
	// Where the policy has replaced a target by another, both are here for a
	// moment: the newer one is for the new connections.
	slices.SortStableFunc(f.targets, func(a, b *target) int {
		return cmp.Or(cmp.Compare(a.current.Rank, b.current.Rank), -cmp.Compare(a.current.Version, b.current.Version),
			cmp.Compare(a.pair.Exit, b.pair.Exit), cmp.Compare(a.pair.Target.String(), b.pair.Target.String()))
	})
}

// revoke takes a target away, and reports whether it was the last. The last one
// stays, for the log.
func (f *forward) revoke(g grant.Grant) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair := grants.PairOf(g.Permission)
	i := slices.IndexFunc(f.targets, func(t *target) bool { return t.pair == pair })
	if i < 0 {
		return false
	}
	if len(f.targets) == 1 {
		return true
	}
	f.targets = slices.Delete(f.targets, i, i+1)
	return false
}

// first returns the grant of the first target.
func (f *forward) first() grant.Grant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.targets[0].current
}

// choice is a target as it was when it was chosen.
type choice struct {
	t *target
	grant.Grant
	reached bool // its portal could be reached
}

// order returns the targets for a client in the order in which they are to be
// tried: those that can be reached by their ranks, then the others; none if the
// client's address is not granted.
func (f *forward) order(client netip.Addr) []choice {
	f.mu.Lock()
	list := make([]choice, 0, len(f.targets))
	for _, t := range f.targets {
		if t.current.Clients.Allow(client) {
			list = append(list, choice{t: t, Grant: t.current})
		}
	}
	f.mu.Unlock()
	return f.byReach(list)
}

// byReach puts those last that cannot be reached.
func (f *forward) byReach(list []choice) []choice {
	if len(list) < 2 {
		return list
	}
	now := time.Now()
	away := make(map[*target]bool)
	for i, c := range list {
		list[i].reached = f.entry.Reach(c.Exit.Name)
		away[c.t] = !list[i].reached
	}
	f.mu.Lock()
	for _, c := range list {
		away[c.t] = away[c.t] || now.Before(c.t.rest)
	}
	f.mu.Unlock()
	sort.SliceStable(list, func(i, j int) bool { return !away[list[i].t] && away[list[j].t] })
	return list
}

// carryTo carries a connection to the first target that takes it. It returns the
// grant of the one it was carried to, or tried last.
func (f *forward) carryTo(ctx context.Context, before <-chan struct{}, list []choice, source netip.AddrPort, conn net.Conn) (grant.Grant, tunnel.Totals, error) {
	for {
		c, began := list[0], time.Now()
		if list = list[1:]; len(list) == 0 {
			totals, err := f.entry.carry(ctx, before, c.Grant, source, conn)
			f.pass(c, began, err)
			return c.Grant, totals, err
		}
		taken := false
		offered, stop := f.entry.whileReached(ctx, c)
		totals, err := f.entry.offer(offered, before, c.Grant, source, conn, func() {
			taken = true
			stop()
		})
		stop()
		if taken || err == nil {
			return c.Grant, totals, err
		}
		f.pass(c, began, err)
		if !elsewhere(err) {
			reset(conn)
			return c.Grant, totals, err
		}
		f.often.Warn("target passed over", "forward", c.Forward, "peer", c.Exit.Name, "target", c.Target.String(), "error", err, "next", list[0].Exit.Name)
	}
}

// pass has a target passed over for a while, if an error is about it and came as
// soon as a try of it does.
func (f *forward) pass(c choice, began time.Time, err error) {
	took := time.Since(began)
	if !elsewhere(err) || took > tunnelTime+leastRest {
		return
	}
	rest := leastRest
	if end, ok := errors.AsType[*tunnel.EndError](err); ok && end.Peer {
		rest = min(max(3*took, leastRest), mostRest)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.t.rest, c.t.failed = time.Now().Add(rest), err.Error()
}

// whileReached returns a context that ends with ctx, and when a portal that could
// be reached is out of reach for longer than a moment: another target is there.
// What is taken by then goes on.
func (e *Entry) whileReached(ctx context.Context, c choice) (context.Context, context.CancelFunc) {
	watched, cancel := context.WithCancelCause(ctx)
	if c.reached {
		e.tasks.Go(func() {
			tick := time.NewTicker(lostTime / 2)
			defer tick.Stop()
			for lost := 0; lost < 2; {
				select {
				case <-tick.C:
				case <-watched.Done():
					return
				}
				if lost++; e.Reach(c.Exit.Name) {
					lost = 0
				}
			}
			cancel(&peers.Unavailable{Reason: wire.ReasonCarrierLost, Detail: c.Exit.Name + " is out of reach"})
		})
	}
	return watched, func() { cancel(context.Canceled) }
}

// elsewhere reports whether an error that came before anything was carried is
// about the way to a target, or the target itself, so that another may do. What a
// grant or an owner forbids is not tried elsewhere.
func elsewhere(err error) bool {
	if none, ok := errors.AsType[*peers.Unavailable](err); ok {
		return none.Reason != wire.ReasonShutdown
	}
	end, ok := errors.AsType[*tunnel.EndError](err)
	if !ok {
		return false
	}
	switch end.Reason {
	case wire.ReasonTargetRefused, wire.ReasonTargetTimeout, wire.ReasonTargetUnreached, wire.ReasonTargetUnknown, wire.ReasonTargetLocal,
		wire.ReasonCarrierLost, wire.ReasonNotDirect, wire.ReasonBusy, wire.ReasonTimeout:
		return true
	case wire.ReasonShutdown:
		return end.Peer
	}
	return false
}

// states returns the state of each target.
func (f *forward) states() (list []State) {
	f.mu.Lock()
	all := make([]choice, 0, len(f.targets))
	for _, t := range f.targets {
		all = append(all, choice{t: t, Grant: t.current})
	}
	f.mu.Unlock()
	next := f.byReach(slices.Clone(all))[0].t
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range all {
		s := State{
			Grant: c.Grant, Listening: !f.draining() && f.listener != nil,
			Since: f.since, Targets: len(all), InUse: c.t == next,
			Accepted: f.accepted.Load(), Refused: f.refused.Load(), Forbidden: f.forbidden.Load(), Foreign: f.foreign.Load(), Dropped: f.dropped.Load(),
		}
		if c.t.failed != "" && time.Now().Before(c.t.rest) {
			s.Failed = c.t.failed
		}
		if f.err != nil && !s.Listening {
			s.Error = f.err.Error()
		}
		list = append(list, s)
	}
	return list
}
