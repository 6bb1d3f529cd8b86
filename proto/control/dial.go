package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

const (
	// nameTime is how long a dial by name may take before the addresses of the
	// Book are dialled as well.
	nameTime = 2 * time.Second
	// greetTime bounds the greeting of what may be somebody else, while there
	// are other addresses to try.
	greetTime = 4 * time.Second
	// portStagger is how long one port of a server is dialled alone.
	portStagger = 300 * time.Millisecond
)

// Dialer is how a portal or a relay reaches its server.
type Dialer[In, Out wire.Message] struct {
	Credentials *identity.Credentials
	Software    string // sent in Hello
	Parse       func(wire.Type, []byte) (In, error)
	Log         *slog.Logger

	// What follows may be left out.

	// Proxy says which servers are reached through a proxy. It looks their names up.
	Proxy *proxy.Settings
	// Pauses returns what is known of the network of now. Without it a
	// connection is asked after each KeepAlive of silence.
	Pauses func() *Pauses
	// Book remembers addresses for a time when names cannot be looked up.
	Book *Book
	// More returns servers that Keep tries after those it was given.
	More func() []string
	// Permit reports why an address, to which a server of More leads, is not dialled.
	// Without it any is.
	Permit func(netip.Addr) error
	// Told is given the server's time, if its certificate is right at that time.
	Told func(time.Time)
	// Refused is called when a server has refused the certificate.
	Refused func()
	// Failed is called by Keep for each address where no server was reached.
	Failed func(address string, err error)
	// Hurry has Keep dial now, and anew if it is dialling: the network has
	// changed.
	Hurry <-chan struct{}

	resolver *net.Resolver     // of names; nil is the system's
	named    map[string]string // by address, who has answered in a server's place at the last attempt; owned by Keep
}

// Dial connects to one server and greets it, within HandshakeTimeout. address
// is "host:port"; of a host with several addresses, IPv6 and IPv4 are raced
// (RFC 8305). A host whose name cannot be looked up, or not soon, or that leads to
// somebody else, is dialled at the addresses of the Book.
func (d *Dialer[In, Out]) Dial(ctx context.Context, address string) (*Conn[In, Out], wire.Welcome, error) {
	var first error
	conn, welcome, _ := d.dial(ctx, []string{address}, nil, func(_ string, err error) {
		if first == nil {
			first = err
		}
	})
	if conn != nil {
		return conn, welcome, nil
	}
	return nil, wire.Welcome{}, first
}

// dial is Dial for the ports of one host, each "host:port": the next is dialled when one has
// failed, or has not connected for portStagger, and of those that connect the first is greeted, so
// that the server sees one greeting at a time. In the end failed is called for each that has failed, and
// the one that has not is returned. permit, if it is not nil, says why an address is not dialled.
func (d *Dialer[In, Out]) dial(ctx context.Context, addresses []string, permit func(netip.Addr) error, failed func(address string, err error)) (*Conn[In, Out], wire.Welcome, string) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	r := newRace(ctx, d.resolver, d.Proxy, permit, len(addresses))
	defer r.stop()
	host, _, err := net.SplitHostPort(addresses[0])
	if err != nil {
		failed(addresses[0], fmt.Errorf("dial server %s: %w", addresses[0], err))
		return nil, wire.Welcome{}, ""
	}
	good := d.Book.good(host)
	r.dial(addresses[0], addresses[0])
	rest := addresses[1:]
	failures := make(map[string]error)
	fails := func(address string, err error) {
		if failures[address] == nil { // of its name; what the Book has failed by comes later
			failures[address] = err
		}
	}
	report := func() {
		for _, a := range addresses {
			if err := failures[a]; err != nil {
				failed(a, err)
			}
		}
	}
	next := time.NewTimer(portStagger)
	defer next.Stop()
	soon := time.NewTimer(nameTime)
	defer soon.Stop()
	for {
		select {
		case <-next.C:
			rest = r.next(rest)
			next.Reset(portStagger)
			continue
		case <-soon.C:
			r.dialGood(good, addresses)
			good = nil
			continue
		case raw := <-r.raws:
			r.under--
			if raw.err != nil {
				fails(raw.address, fmt.Errorf("dial server %s: %w", raw.address, cause(raw.err)))
				break
			}
			conn, welcome, err := d.greetOne(ctx, raw.conn, len(good) > 0 || r.under > 0 || len(rest) > 0)
			if err == nil {
				if raw.through != nil {
					conn.proxied(raw.through, raw.address)
				} else {
					d.Book.reached(host, addrOf(raw.conn.RemoteAddr()))
				}
				delete(failures, raw.address)
				report()
				return conn, welcome, raw.address
			}
			raw.conn.Close()
			fails(raw.address, fmt.Errorf("greet server %s: %w", raw.address, err))
		}
		r.dialGood(good, addresses)
		good = nil
		rest = r.next(rest)
		next.Reset(portStagger)
		if r.under == 0 {
			report()
			return nil, wire.Welcome{}, ""
		}
	}
}

// greetOne greets what was connected; not for long if there is another.
func (d *Dialer[In, Out]) greetOne(ctx context.Context, raw net.Conn, another bool) (*Conn[In, Out], wire.Welcome, error) {
	if another {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, greetTime)
		defer cancel()
	}
	return d.greet(ctx, raw)
}

// race is the dials of one server. It is owned by the goroutine in Dial, but
// for what mu guards.
type race struct {
	ctx    context.Context
	cancel context.CancelFunc
	proxy  *proxy.Settings
	permit func(netip.Addr) error // may be nil
	dialer net.Dialer
	raws   chan raw // has room for all
	under  int      // dials whose outcome was not taken from raws
	tasks  sync.WaitGroup

	mu    sync.Mutex // guards the following
	tried []string   // "address:port" that were dialled
}

type raw struct {
	address string       // as it was given; what the Book has may have been dialled for it
	through *proxy.Proxy // nil: none
	conn    net.Conn
	err     error
}

func newRace(ctx context.Context, resolver *net.Resolver, through *proxy.Settings, permit func(netip.Addr) error, ports int) *race {
	r := &race{proxy: through, permit: permit, raws: make(chan raw, ports*(1+maxGood))}
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

// permitted judges "address:port", as a name was resolved.
func permitted(address string, permit func(netip.Addr) error) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return permit(ap.Addr())
}

// dial dials "host:port", for what was named so, in a goroutine of its own. What goes through a proxy is judged as far as it is an
// address: the proxy looks names up.
func (r *race) dial(named, address string) {
	r.under++
	r.tasks.Go(func() {
		var conn net.Conn
		var err error
		through := r.proxy.Through(named)
		if through == nil {
			conn, err = r.dialer.DialContext(r.ctx, "tcp", address)
			r.raws <- raw{named, nil, conn, err}
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
		r.raws <- raw{named, through, conn, err}
	})
}

// next dials the next of some ports, and returns those after it.
func (r *race) next(rest []string) []string {
	if len(rest) == 0 {
		return nil
	}
	r.dial(rest[0], rest[0])
	return rest[1:]
}

// dialGood dials the addresses that a name has not led to already, at all ports, unless a proxy looks
// the name up.
func (r *race) dialGood(good []netip.Addr, addresses []string) {
	for _, named := range addresses {
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

// cause strips what package net puts before its errors: the caller names the
// address already.
func cause(err error) error {
	if _, ok := errors.AsType[*proxy.Error](err); ok {
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && op.Err != nil {
		return op.Err
	}
	return err
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
