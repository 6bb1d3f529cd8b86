package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/overquic"
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
	// onlyUDPTime is greetTime where the others are over UDP.
	onlyUDPTime = 6 * time.Second
	// portStagger is how long one port of a server is dialled alone.
	portStagger = 300 * time.Millisecond
	// refusals is in how many rounds on end every port of a server must have refused TCP
	// for UDP to be tried: a server that is started anew refuses it too.
	refusals = 2
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
	// Last returns how a server was reached last in the network of now, and Reached is told by Keep how
	// one was reached. Without them Keep knows what it has seen itself.
	Last    func() Way
	Reached func(Way)
	// Hurry has Keep dial now, and anew if it is dialling: the network has
	// changed.
	Hurry <-chan struct{}

	resolver *net.Resolver // of names; nil is the system's

	// Owned by Keep.
	named   map[string]string // by address, who has answered in a server's place at the last attempt
	refused map[string]int    // by host, in how many rounds on end all has refused TCP
}

// Way is how a server was reached.
type Way struct {
	Address string // "host:port", as it was given
	UDP     bool   // over QUIC; else over TCP
}

// Dial connects to one server and greets it, within HandshakeTimeout. address
// is "host:port"; of a host with several addresses, IPv6 and IPv4 are raced
// (RFC 8305). A host whose name cannot be looked up, or not soon, or that leads to
// somebody else, is dialled at the addresses of the Book.
func (d *Dialer[In, Out]) Dial(ctx context.Context, address string) (*Conn[In, Out], wire.Welcome, error) {
	var first error
	var last Way
	if d.Last != nil {
		last = d.Last()
	}
	conn, welcome, _ := d.dial(ctx, []string{address}, last, false, nil, func(_ string, err error) {
		if first == nil {
			first = err
		}
	})
	if conn != nil {
		return conn, welcome, nil
	}
	return nil, wire.Welcome{}, first
}

// dial is Dial for the ports of one host, each "host:port": the next way is dialled when one has
// failed, or has not connected for portStagger, and of those that connect the first is greeted, so
// that the server sees one greeting at a time. last is how the server was reached last; insist has UDP tried
// where TCP is refused. In the end failed is called for each address that has failed, and the way that has
// not is returned. permit, if it is not nil, says why an address is not dialled.
func (d *Dialer[In, Out]) dial(ctx context.Context, addresses []string, last Way, insist bool, permit func(netip.Addr) error, failed func(address string, err error)) (*Conn[In, Out], wire.Welcome, Way) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addresses[0])
	if err != nil {
		failed(addresses[0], fmt.Errorf("dial server %s: %w", addresses[0], err))
		return nil, wire.Welcome{}, Way{}
	}
	good := d.Book.good(host)
	r := newRace(ctx, d.resolver, d.Proxy, permit, good, d.secure)
	defer r.stop()
	r.begin(addresses, last, insist)
	var f failures
	defer func() { f.report(addresses, failed) }()
	next := time.NewTimer(portStagger)
	defer next.Stop()
	soon := time.NewTimer(nameTime)
	defer soon.Stop()
	var late <-chan time.Time // when what is under way was waited for
	for {
		select {
		case <-next.C:
			r.next()
			next.Reset(portStagger)
			continue
		case <-soon.C:
			r.dialGood()
			continue
		case <-late:
			return nil, wire.Welcome{}, Way{}
		case raw := <-r.raws:
			r.note(raw)
			if raw.err != nil {
				f.add(raw.Way, fmt.Errorf("dial server %s: %w", raw.Address, cause(raw.err)))
				break
			}
			conn, welcome, err := d.greetOne(ctx, raw, r.patience())
			if err == nil {
				if raw.through != nil {
					conn.proxied(raw.through, raw.Address)
				} else {
					d.Book.reached(host, addrOf(raw.conn.RemoteAddr()))
				}
				f.forget(raw.Address)
				return conn, welcome, raw.Way
			}
			raw.conn.Close()
			f.add(raw.Way, fmt.Errorf("greet server %s: %w", raw.Address, err))
		}
		r.dialGood()
		r.next()
		next.Reset(portStagger)
		if r.under == 0 {
			return nil, wire.Welcome{}, Way{}
		}
		if late == nil && r.unlikely() {
			late = time.After(udpAlone)
		}
	}
}

// greetOne greets what was connected, within limit if that is not 0.
func (d *Dialer[In, Out]) greetOne(ctx context.Context, raw raw, limit time.Duration) (*Conn[In, Out], wire.Welcome, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if stream, is := raw.conn.(*overquic.Conn); is {
		return d.greetUDP(ctx, stream, raw.early)
	}
	return d.greet(ctx, raw.conn)
}

// failures is why addresses were not reached, by address.
type failures struct{ tcp, udp map[string]error }

// add adds the failure of one way: the first counts, which is that of a name; what the Book has
// failed by comes later.
func (f *failures) add(w Way, err error) {
	if f.tcp == nil {
		f.tcp, f.udp = make(map[string]error), make(map[string]error)
	}
	m := f.tcp
	if w.UDP {
		m = f.udp
	}
	if m[w.Address] == nil {
		m[w.Address] = err
	}
}

// forget drops those of an address that was reached after all.
func (f *failures) forget(address string) {
	delete(f.tcp, address)
	delete(f.udp, address)
}

// report calls failed for each address that has failed. A name that cannot be looked up is so for both.
func (f *failures) report(addresses []string, failed func(string, error)) {
	for _, a := range addresses {
		tcp, udp := f.tcp[a], f.udp[a]
		_, nameless := errors.AsType[*net.DNSError](udp)
		switch {
		case tcp != nil && udp != nil && !nameless:
			failed(a, fmt.Errorf("%w; over UDP: %v", tcp, udp))
		case tcp != nil:
			failed(a, tcp)
		case udp != nil:
			failed(a, fmt.Errorf("over UDP: %w", udp))
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
	if t, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // TCP's or UDP's
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
