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
	return d.dial(ctx, address, nil)
}

// dial is Dial, where permit, if it is not nil, says why an address is not dialled.
func (d *Dialer[In, Out]) dial(ctx context.Context, address string, permit func(netip.Addr) error) (*Conn[In, Out], wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, wire.Welcome{}, fmt.Errorf("dial server %s: %w", address, err)
	}
	through := d.Proxy.Through(address)
	if a, err := netip.ParseAddr(host); through != nil && err == nil && permit != nil {
		if err := permit(a); err != nil {
			return nil, wire.Welcome{}, fmt.Errorf("dial server %s: %w", address, err)
		}
	}
	r := newRace(ctx, d.resolver, through, permit)
	defer r.stop()
	r.dial(address)
	var good []netip.Addr // a proxy looks up names itself
	if through == nil {
		good = d.Book.good(host)
	}
	soon := time.NewTimer(nameTime)
	defer soon.Stop()
	var first error
	for {
		var failed error
		select {
		case <-soon.C:
			r.dialGood(good, port)
			good = nil
			continue
		case raw := <-r.raws:
			r.under--
			if raw.err != nil {
				failed = fmt.Errorf("dial server %s: %w", address, cause(raw.err))
				break
			}
			conn, welcome, err := d.greetOne(ctx, raw.conn, len(good) > 0 || r.under > 0)
			if err == nil && through != nil {
				conn.proxied(through, address)
			} else if err == nil {
				d.Book.reached(host, addrOf(raw.conn.RemoteAddr()))
			}
			if err == nil {
				return conn, welcome, nil
			}
			raw.conn.Close()
			failed = fmt.Errorf("greet server %s: %w", address, err)
		}
		if first == nil {
			first = failed
		}
		r.dialGood(good, port)
		good = nil
		if r.under == 0 {
			return nil, wire.Welcome{}, first
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
	dialer net.Dialer
	proxy  *proxy.Proxy // nil: none
	raws   chan raw     // has room for all
	under  int          // dials whose outcome was not taken from raws
	tasks  sync.WaitGroup

	mu    sync.Mutex // guards the following
	tried []string   // "address:port" that were dialled
}

type raw struct {
	conn net.Conn
	err  error
}

func newRace(ctx context.Context, resolver *net.Resolver, through *proxy.Proxy, permit func(netip.Addr) error) *race {
	r := &race{proxy: through, raws: make(chan raw, 1+maxGood)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	// A Go connection's own keepalive every 15 s would cost more than all our
	// messages; Conn keeps itself alive.
	r.dialer = net.Dialer{KeepAlive: -1, Resolver: resolver, ControlContext: func(_ context.Context, _, address string, socket syscall.RawConn) error {
		if permit != nil && through == nil {
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

func (r *race) dial(address string) {
	r.under++
	r.tasks.Go(func() {
		conn, err := r.proxy.DialContext(r.ctx, &r.dialer, address)
		r.raws <- raw{conn, err}
	})
}

// dialGood dials the addresses that the name has not led to already.
func (r *race) dialGood(good []netip.Addr, port string) {
	for _, a := range good {
		address := net.JoinHostPort(a.String(), port)
		r.mu.Lock()
		tried := slices.Contains(r.tried, address)
		r.mu.Unlock()
		if !tried {
			r.dial(address)
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
