package portmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

const (
	// minPause is the least between two tries at one mapping, whatever the router says.
	minPause = 30 * time.Second
	// firstPause and lastPause are how long nothing is asked of a router that maps nothing:
	// at first, and at last.
	firstPause = 5 * time.Minute
	lastPause  = time.Hour
)

// speaker speaks one protocol with a router. An error that is a refusal is the router's own
// word; with others it has not answered, or not as it should.
type speaker interface {
	// add maps a port for a lease, or renews that. near is the external address that is
	// wished for; its port is the port's own, or what the router gave before. With an error
	// the grant's external address, if it is valid, is what may be mapped nonetheless: the
	// router was asked, and has not answered.
	add(ctx context.Context, p Port, near netip.AddrPort) (grant, error)
	// remove takes a mapping back.
	remove(ctx context.Context, p Port, external netip.AddrPort) error
	// restarted reports whether the last answer showed that the router has lost what it knew.
	restarted() bool
}

// grant is what a router gives.
type grant struct {
	external netip.AddrPort
	lease    time.Duration
}

// refusal is a router's no.
type refusal struct{ why string }

func (r refusal) Error() string { return "the router refuses: " + r.why }

// doubtful returns what may be mapped after an error: nothing where the router has refused.
func doubtful(err error, external netip.AddrPort) (g grant) {
	if !errors.As(err, new(refusal)) {
		g.external = external
	}
	return g
}

// protocol is one that a router may speak; find returns a speaker if it does, and changes
// nothing at the router.
type protocol struct {
	name string
	find func(context.Context, place) (speaker, error)
}

// errNoGateway is why nothing is mapped where there is nobody to ask.
var errNoGateway = errors.New("no IPv4 gateway is known")

// router is the mappings at one router. It is owned by one goroutine.
type router struct {
	place
	protocols []protocol
	log       *slog.Logger

	speaks  speaker // nil: not found
	kind    int     // of protocols: that it speaks, or the next to be tried
	why     error   // why those before do not serve
	again   time.Time
	pause   time.Duration
	leases  []*claim
	checked time.Time // when all were renewed because it seemed to have restarted
}

// claim is one wanted port.
type claim struct {
	port  Port
	grant           // zero: not mapped
	until time.Time // when that ends
	due   time.Time // when it is asked for next
	err   error     // of the last try
}

func newRouter(at place, p []protocol, log *slog.Logger) *router {
	return &router{place: at, protocols: p, log: log, pause: firstPause}
}

// step does what is due, and returns when to call again. What blocks is bounded by the
// protocols' times and by ctx.
func (r *router) step(ctx context.Context, wanted []Port) (again time.Time) {
	r.follow(wanted)
	now := time.Now()
	switch {
	case len(wanted) == 0:
		return now.Add(lastPause)
	case !r.gateway.IsValid():
		r.why = errNoGateway
		return now.Add(lastPause)
	case r.speaks == nil && now.Before(r.again):
		return r.again
	case r.speaks == nil:
		if r.find(ctx); r.speaks == nil {
			return r.again
		}
	}
	again = now.Add(lease)
	for _, c := range r.leases {
		if !time.Now().Before(c.due) {
			r.renew(ctx, c)
		}
		if r.speaks == nil {
			return now
		}
		if c.due.Before(again) {
			again = c.due
		}
	}
	if r.speaks.restarted() && time.Since(r.checked) > minPause {
		r.log.Info("the router has lost its mappings", "gateway", r.gateway.String())
		r.disturb(time.Now())
		r.checked = time.Now()
		return now
	}
	return again
}

// follow makes the claims those that are wanted. What is taken back is so even when this
// portal stops meanwhile.
func (r *router) follow(wanted []Port) {
	ctx, done := context.WithTimeout(context.Background(), leaveTime)
	defer done()
	r.leases = slices.DeleteFunc(r.leases, func(c *claim) bool {
		unwanted := !slices.Contains(wanted, c.port)
		if unwanted {
			r.remove(ctx, c)
		}
		return unwanted
	})
	for _, p := range wanted {
		if !slices.ContainsFunc(r.leases, func(c *claim) bool { return c.port == p }) {
			r.leases = append(r.leases, &claim{port: p})
		}
	}
}

// find looks for the protocol that the router speaks, from the next one on.
func (r *router) find(ctx context.Context) {
	if r.kind == 0 {
		r.why = nil
	}
	for ; r.kind < len(r.protocols); r.kind++ {
		s, err := r.protocols[r.kind].find(ctx, r.place)
		if err == nil {
			r.speaks = s
			return
		}
		r.blame(err)
	}
	r.log.Debug("the router maps no ports", "gateway", r.gateway.String(), "reason", r.why.Error())
	r.kind, r.again = 0, time.Now().Add(r.pause)
	r.pause = min(2*r.pause, lastPause)
}

// blame notes why a protocol does not serve.
func (r *router) blame(err error) {
	err = fmt.Errorf("%s: %w", r.protocols[r.kind].name, err)
	if r.why != nil {
		err = fmt.Errorf("%w; %w", r.why, err)
	}
	r.why = err
}

// renew asks for a mapping.
func (r *router) renew(ctx context.Context, c *claim) {
	near := c.external
	if !near.IsValid() {
		near = netip.AddrPortFrom(netip.IPv4Unspecified(), c.port.Number)
	}
	got, err := r.speaks.add(ctx, c.port, near)
	now := time.Now()
	c.err = err
	if err == nil {
		got.lease = min(got.lease, maxLease)
		if got.external != c.external {
			r.log.Info("the router maps a port", "gateway", r.gateway.String(), "protocol", r.protocols[r.kind].name,
				"transport", c.port.Transport.String(), "port", c.port.Number, "external", got.external.String(), "lease", got.lease)
		}
		c.grant, c.until, c.due = got, now.Add(got.lease), now.Add(max(got.lease/2, minPause))
		r.pause = firstPause
		return
	}
	r.log.Debug("port not mapped", "gateway", r.gateway.String(), "protocol", r.protocols[r.kind].name, "transport", c.port.Transport.String(), "port", c.port.Number, "error", err)
	switch {
	case !c.external.IsValid():
		if got.external.IsValid() {
			leaving, done := context.WithTimeout(context.Background(), leaveTime)
			defer done()
			r.speaks.remove(leaving, c.port, got.external) // it is not needed, and ends by itself at last
		}
		c.due = now.Add(firstPause)
	case now.Before(c.until) && !errors.As(err, new(refusal)):
		// RFC 6887 section 11.2.1: what is not renewed at half of its life is tried again at
		// half of the rest.
		c.due = now.Add(min(max(c.until.Sub(now)/2, minPause), c.until.Sub(now)))
	default:
		r.log.Info("the router maps a port no longer", "gateway", r.gateway.String(), "transport", c.port.Transport.String(), "port", c.port.Number, "external", c.external.String(), "error", err)
		c.grant, c.until, c.due = grant{}, time.Time{}, now.Add(minPause)
	}
	if !r.mapped() {
		r.giveUp(c)
	}
}

// giveUp leaves a protocol by which nothing is mapped, for the next one, which is tried at
// once.
func (r *router) giveUp(c *claim) {
	r.blame(c.err)
	r.speaks = nil
	r.kind++
	r.again = time.Time{}
	for _, c := range r.leases {
		c.due = time.Time{}
	}
}

func (r *router) mapped() bool {
	return slices.ContainsFunc(r.leases, func(c *claim) bool { return c.external.IsValid() })
}

// disturb has all asked for again.
func (r *router) disturb(now time.Time) {
	r.again = now
	for _, c := range r.leases {
		c.due = now
	}
}

// remove takes a mapping back.
func (r *router) remove(ctx context.Context, c *claim) {
	if !c.external.IsValid() || r.speaks == nil {
		return
	}
	if err := r.speaks.remove(ctx, c.port, c.external); err != nil {
		r.log.Debug("mapping not taken back; it ends by itself", "gateway", r.gateway.String(), "external", c.external.String(), "until", c.until, "error", err)
		return
	}
	r.log.Info("mapping taken back", "gateway", r.gateway.String(), "transport", c.port.Transport.String(), "port", c.port.Number, "external", c.external.String())
}

// state returns what stands.
func (r *router) state() State {
	s := State{Gateway: r.gateway}
	if len(r.leases) == 0 {
		return s
	}
	if r.speaks != nil {
		s.Protocol = r.protocols[r.kind].name
	} else if r.why != nil {
		s.Why = r.why.Error()
	}
	for _, c := range r.leases {
		switch {
		case c.external.IsValid():
			s.Mappings = append(s.Mappings, Mapping{Port: c.port, External: c.external, Lease: c.lease, Until: c.until})
			if why := useless(c.external); why != "" {
				s.Why = why
			}
		case c.err != nil && r.speaks != nil:
			s.Why = fmt.Sprintf("%s: %s %d: %v", s.Protocol, c.port.Transport, c.port.Number, c.err)
		}
	}
	return s
}
