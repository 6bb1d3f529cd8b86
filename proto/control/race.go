package control

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
	"github.com/netport/netport/proto/proxy"
)

// ways returns the ways to the ports of one host in the order in which they are dialled: TCP to all of
// them, and then UDP, unless a proxy is in between. Where the last way was UDP that comes right behind the
// first of TCP.
func ways(addresses []string, last Way, through *proxy.Settings) (list []Way) {
	passes := func(a string) bool { return through.Through(a) == nil }
	for i, a := range addresses {
		list = append(list, Way{Address: a})
		if i == 0 && last.UDP && slices.Contains(addresses, last.Address) && passes(last.Address) {
			list = append(list, last)
		}
	}
	for _, a := range addresses {
		if w := (Way{Address: a, UDP: true}); w != last && passes(a) {
			list = append(list, w)
		}
	}
	return list
}

// race is the dials of one server. It is owned by the goroutine in Dial, but
// for what mu guards.
type race struct {
	ctx       context.Context
	cancel    context.CancelFunc
	proxy     *proxy.Settings
	permit    func(netip.Addr) error // may be nil
	dialer    net.Dialer
	quic      overquic.Dialer
	secure    func() (*tls.Config, *identity.Early)
	addresses []string
	rest      []Way
	both      bool         // UDP was the last way, and is dialled from the beginning
	insist    bool         // on UDP, where TCP is refused
	good      []netip.Addr // that were not dialled
	raws      chan raw     // has room for all
	under     int          // dials whose outcome was not taken from raws
	underTCP  int          // those of them over TCP
	tcp       int          // dials over TCP
	refusedBy int          // those of them that were refused
	tasks     sync.WaitGroup

	mu    sync.Mutex // guards the following
	tried []string   // "address:port" that were dialled over TCP
}

type raw struct {
	Way                     // as it was given; what the Book has may have been dialled for it
	through *proxy.Proxy    // nil: none
	conn    net.Conn        // bare, or an *overquic.Conn
	early   *identity.Early // of the handshake of that
	err     error
}

func newRace(ctx context.Context, resolver *net.Resolver, through *proxy.Settings, permit func(netip.Addr) error, good []netip.Addr, secure func() (*tls.Config, *identity.Early)) *race {
	r := &race{proxy: through, permit: permit, good: good, secure: secure, quic: overquic.Dialer{Resolver: resolver, Permit: permit, Known: good}}
	r.ctx, r.cancel = context.WithCancel(ctx)
	// A Go connection's own keepalive every 15 s would cost more than all our
	// messages; Conn keeps itself alive.
	r.dialer = net.Dialer{KeepAlive: -1, Resolver: resolver, ControlContext: func(_ context.Context, _, address string, socket syscall.RawConn) error {
		if permit != nil {
			if err := permitted(address, permit); err != nil {
				return err
			}
		}
		retrySoon(socket)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tried = append(r.tried, address)
		return nil
	}}
	return r
}

// begin dials the first way, and with it the one that was the last if that is UDP: over TCP the
// connection stands before it does over QUIC, wherever TCP passes.
func (r *race) begin(addresses []string, last Way, insist bool) {
	r.addresses, r.rest = addresses, ways(addresses, last, r.proxy)
	r.raws = make(chan raw, len(r.rest)+len(addresses)*len(r.good))
	r.both = len(r.rest) > 1 && r.rest[1].UDP && r.rest[1] == last
	r.insist = insist || r.both
	r.next()
	if r.both {
		r.next()
	}
}

// permitted judges "address:port", as a name was resolved.
func permitted(address string, permit func(netip.Addr) error) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return permit(ap.Addr())
}

// dial dials "host:port" over TCP, for what was named so, in a goroutine of its own. What goes through a
// proxy is judged as far as it is an address: the proxy looks names up.
func (r *race) dial(named, address string) {
	r.under++
	r.underTCP++
	r.tcp++
	r.tasks.Go(func() {
		var conn net.Conn
		var err error
		through := r.proxy.Through(named)
		if through == nil {
			conn, err = r.dialer.DialContext(r.ctx, "tcp", address)
			r.raws <- raw{Way: Way{Address: named}, conn: conn, err: err}
			return
		}
		if _, parsed := netip.ParseAddrPort(address); parsed == nil && r.permit != nil {
			err = permitted(address, r.permit)
		}
		if err == nil {
			conn, err = through.DialContext(r.ctx, &net.Dialer{KeepAlive: -1, ControlContext: func(_ context.Context, _, _ string, socket syscall.RawConn) error {
				retrySoon(socket)
				return nil
			}}, address)
		}
		r.raws <- raw{Way: Way{Address: named}, through: through, conn: conn, err: err}
	})
}

// dialUDP is dial over QUIC, with the handshake.
func (r *race) dialUDP(address string) {
	r.under++
	r.tasks.Go(func() {
		conn, early, err := overquic.Dial(r.ctx, r.quic, address, r.secure)
		outcome := raw{Way: Way{Address: address, UDP: true}, early: early, err: err}
		if err == nil {
			outcome.conn = conn
		}
		r.raws <- outcome
	})
}

// next dials the next way, if there is one. UDP is none where all that was dialled has refused TCP: no
// server is there, as a rule.
func (r *race) next() {
	if len(r.rest) == 0 {
		return
	}
	w := r.rest[0]
	r.rest = r.rest[1:]
	switch {
	case !w.UDP:
		r.dial(w.Address, w.Address)
	case r.insist || r.refusedBy < r.tcp:
		r.dialUDP(w.Address)
	default:
		r.rest = nil
	}
}

// left reports whether there is a way over TCP, or over UDP, that was not dialled.
func (r *race) left(udp bool) bool {
	return slices.ContainsFunc(r.rest, func(w Way) bool { return w.UDP == udp })
}

// unlikely reports whether nothing is under way any more but what is not the usual way here: UDP,
// or TCP where UDP was the last way. The server may be away for a moment: the next round is better.
func (r *race) unlikely() bool {
	if r.both {
		return len(r.rest) == 0 && r.under == r.underTCP
	}
	return r.underTCP == 0 && !r.left(false)
}

// note takes an outcome.
func (r *race) note(raw raw) {
	r.under--
	if raw.UDP {
		return
	}
	r.underTCP--
	if errors.Is(raw.err, syscall.ECONNREFUSED) {
		r.refusedBy++
	}
}

// patience is how long a greeting may take, seeing what else there is to try; 0: as long as the
// whole.
func (r *race) patience() time.Duration {
	switch {
	case r.underTCP > 0 || r.left(false) || len(r.good) > 0:
		return greetTime
	case r.under > 0 || r.left(true):
		return onlyUDPTime
	}
	return 0
}

// dialGood dials the addresses of the Book that a name has not led to already, at all ports, unless a
// proxy looks the name up. It does so once.
func (r *race) dialGood() {
	good := r.good
	r.good = nil
	for _, named := range r.addresses {
		if r.proxy.Through(named) != nil {
			continue
		}
		_, port, _ := net.SplitHostPort(named) // those of one host, which was split
		for _, a := range good {
			address := net.JoinHostPort(a.String(), port)
			r.mu.Lock()
			tried := slices.Contains(r.tried, address)
			r.mu.Unlock()
			if !tried {
				r.dial(named, address)
			}
		}
	}
}

// stop ends all dials, waits until they are over, and closes what came of them
// that nobody took.
func (r *race) stop() {
	r.cancel()
	r.tasks.Wait()
	close(r.raws)
	for raw := range r.raws {
		if raw.conn != nil {
			raw.conn.Close()
		}
	}
}
