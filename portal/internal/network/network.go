// Package network watches the network that this machine is in: its addresses,
// its default route, its links, and how its clocks go. What is learned about
// ways to other machines holds for one network (an ID) and says little about the
// next; and a change is the moment to look after every connection, long before
// any of them would find out by being silent.
//
// A Watch tells of changes and acts on none. On Linux the kernel tells it
// (netlink, which needs no rights); elsewhere it looks every few seconds. That the
// machine slept, that this process was stopped or that somebody set the clock
// shows in a tick that comes late, or at another time than it should.
package network

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"
)

// ID tells networks apart: the default gateway and the prefix of the address
// that goes there. Two networks may have the same ID (many homes are 192.168.1.0
// behind 192.168.1.1): who remembers things by it must find out when they do
// not hold.
type ID struct {
	Gateway netip.Addr   // invalid: none, or not known on this system
	Prefix  netip.Prefix // invalid: no network
}

// String returns the gateway and the prefix, each "-" where there is none.
func (id ID) String() string {
	gateway, prefix := "-", "-"
	if id.Gateway.IsValid() {
		gateway = id.Gateway.String()
	}
	if id.Prefix.IsValid() {
		prefix = id.Prefix.String()
	}
	return gateway + " " + prefix
}

// Change is what has happened since the one before.
type Change struct {
	Network bool          // the ID is another
	New     []netip.Addr  // addresses that this machine has got
	Gone    []netip.Addr  // and those that it has no longer
	Link    bool          // an interface that has an address has lost its link or has it again
	Away    time.Duration // for so long the machine slept, or this process was stopped
	Clock   time.Duration // the wall clock was set by so much, forth or back
}

// empty reports whether nothing has happened.
func (c Change) empty() bool {
	return !c.Network && len(c.New) == 0 && len(c.Gone) == 0 && !c.Link && c.Away == 0 && c.Clock == 0
}

// merge adds what has happened after c.
func (c Change) merge(next Change) Change {
	return Change{
		Network: c.Network || next.Network,
		New:     append(without(c.New, next.Gone), next.New...),
		Gone:    append(without(c.Gone, next.New), next.Gone...),
		Link:    c.Link || next.Link,
		Away:    c.Away + next.Away,
		Clock:   c.Clock + next.Clock,
	}
}

func without(list, gone []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return slices.Contains(gone, a) })
}

// gather is how long after the first sign of a change the machine is looked at:
// an address rarely comes alone.
const gather = 100 * time.Millisecond

// Watch watches the network. Its methods are safe for concurrent use.
type Watch struct {
	log    *slog.Logger
	look   func() (state, error)
	clock  func() reading
	listen func(ctx context.Context, signs chan<- struct{}) // gives a sign when to look

	mu        sync.Mutex // guards the following
	now       state
	listeners map[chan Change]struct{}
	busy      int           // Holds
	hurry     chan struct{} // told when busy rises from 0
}

// state is how the machine is connected.
type state struct {
	id    ID
	addrs []netip.Addr // sorted; without loopback and link-local ones
	links []string     // names of the interfaces with such an address that have a link, sorted
}

// New returns a Watch that has looked once.
func New(log *slog.Logger) *Watch {
	w := &Watch{
		log: log, look: look, clock: readClocks,
		listeners: make(map[chan Change]struct{}), hurry: make(chan struct{}, 1),
	}
	w.listen = w.listenSystem
	now, err := w.look()
	if err != nil {
		log.Warn("the network of this machine cannot be read", "error", err)
	}
	w.now = now
	return w
}

// Current returns the network that the machine is in.
func (w *Watch) Current() ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.id
}

// Changes returns a channel for one listener, and what ends it. A listener that
// is slow misses nothing: changes that it has not taken become one.
func (w *Watch) Changes() (<-chan Change, func()) {
	c := make(chan Change, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.listeners, c)
	}
}

// Hold has the clocks looked at every second instead of every five, until the
// returned function is called: for as long as somebody would lose by not
// knowing that the machine has slept.
func (w *Watch) Hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy++; w.busy == 1 {
		select {
		case w.hurry <- struct{}{}:
		default:
		}
	}
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy--
	})
}

// Run watches until ctx is cancelled.
func (w *Watch) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signs := make(chan struct{}, 1)
	tasks.Go(func() { w.listen(ctx, signs) })
	w.check() // what happened before listen began
	clocks, apart := w.clock(), w.tick()
	tick := time.NewTimer(apart)
	defer tick.Stop()
	checkClocks := func() {
		now := w.clock()
		away, set := now.since(clocks, apart)
		clocks, apart = now, w.tick()
		tick.Reset(apart)
		if away > 0 || set != 0 {
			w.log.Info("time has jumped", "away", away, "clock", set)
			w.tell(Change{Away: away, Clock: set})
			w.check() // a machine that wakes may be elsewhere
		}
	}
	settle := time.NewTimer(0)
	settle.Stop()
	settling := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signs:
			if !settling {
				settling = true
				settle.Reset(gather)
			}
		case <-settle.C:
			settling = false
			w.check()
		case <-w.hurry:
			checkClocks()
		case <-tick.C:
			checkClocks()
		}
	}
}

// tick is how often the clocks are looked at.
func (w *Watch) tick() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy > 0 {
		return time.Second
	}
	return 5 * time.Second
}

// check looks at the machine and tells what has changed.
func (w *Watch) check() {
	now, err := w.look()
	if err != nil {
		w.log.Warn("the network of this machine cannot be read", "error", err)
		return
	}
	w.mu.Lock()
	was := w.now
	w.now = now
	w.mu.Unlock()
	c := Change{
		Network: now.id != was.id,
		New:     without(now.addrs, was.addrs),
		Gone:    without(was.addrs, now.addrs),
		Link:    !slices.Equal(now.links, was.links),
	}
	if c.empty() {
		return
	}
	w.log.Info("network changed", "network", now.id.String(), "new", c.New, "gone", c.Gone, "links", now.links)
	w.tell(c)
}

func (w *Watch) tell(c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.listeners {
		next := c
		select {
		case missed := <-l:
			next = missed.merge(c)
		default:
		}
		l <- next // there is room: nobody else sends
	}
}

// addresses returns the addresses of this machine that reach others, with the
// interfaces that have them.
func addresses() (all []holder, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		list, err := i.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range list {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, _ := netip.AddrFromSlice(n.IP)
			addr = addr.Unmap()
			ones, _ := n.Mask.Size()
			if addr.IsGlobalUnicast() {
				all = append(all, holder{netip.PrefixFrom(addr, ones), i})
			}
		}
	}
	return all, nil
}

// holder is an address, with its prefix, and the interface that has it.
type holder struct {
	prefix netip.Prefix
	on     net.Interface
}

// stateOf sorts what addresses returned; route tells the default route.
func stateOf(all []holder, route route) state {
	var s state
	for _, h := range all {
		s.addrs = append(s.addrs, h.prefix.Addr())
		if h.on.Flags&net.FlagRunning != 0 && !slices.Contains(s.links, h.on.Name) {
			s.links = append(s.links, h.on.Name)
		}
	}
	sort.Slice(s.addrs, func(i, j int) bool { return s.addrs[i].Less(s.addrs[j]) })
	s.addrs = slices.Compact(s.addrs)
	slices.Sort(s.links)
	s.id = ID{Gateway: route.gateway, Prefix: prefixOf(all, route)}
	return s
}

// route is the default route; zero: none, or not known.
type route struct {
	gateway netip.Addr // invalid: the far end of a link
	on      int        // index of the interface; 0: not known
}

// prefixOf returns the prefix of the address that goes to the gateway; where
// that is not known, the first of the interface, or of all, IPv4 first.
func prefixOf(all []holder, route route) (best netip.Prefix) {
	for _, h := range all {
		switch {
		case route.on != 0 && h.on.Index != route.on:
		case route.gateway.IsValid() && h.prefix.Contains(route.gateway):
			return h.prefix.Masked()
		case !best.IsValid(), h.prefix.Addr().Is4() && best.Addr().Is6():
			best = h.prefix.Masked()
		}
	}
	return best
}

// Addresses returns the addresses of this machine that reach others, as they were when
// it was looked at last: without loopback and link-local ones.
func (w *Watch) Addresses() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.now.addrs)
}
