package meeting

import (
	"context"
	"errors"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/wire"
)

var (
	errForeign = errors.New("the peer names the tunnel, and its proof is wrong")
	errOther   = errors.New("the peer does not have this tunnel any more")
)

// greet exchanges HELLO on the carrier that was taken and finds the tunnel that it
// belongs to: that which both name, each with a right proof, else a new one. of
// is the only tunnel that it may belong to, if not nil.
func (m *Meeting) greet(ctx context.Context, won taken, of *tunnel.Identity) (Met, error) {
	var met Met
	var err error
	switch {
	case m.client && of != nil:
		won.conn.SendHello(hello(won, *of))
		return Met{Conn: unanswered{won.conn, *of}, Way: won.way, Tunnel: *of}, nil
	case m.client:
		met, err = m.greetFirst(ctx, won)
	default:
		met, err = m.answer(ctx, won, of)
	}
	if err != nil {
		won.conn.Abort(err)
		return Met{}, err
	}
	met.Conn, met.Way = won.conn, won.way
	return met, nil
}

// greetFirst is the TLS client's side, where the carrier may be of any tunnel.
func (m *Meeting) greetFirst(ctx context.Context, won taken) (Met, error) {
	named, ok := m.Tunnels.Named()
	if !ok {
		won.conn.SendHello(wire.TunnelHello{})
		return m.found(won), nil
	}
	won.conn.SendHello(hello(won, named))
	ctx, cancel := context.WithTimeoutCause(ctx, joinTime, errSlow)
	defer cancel()
	answer, err := won.conn.AwaitHello(ctx)
	switch {
	case err != nil:
		return Met{}, err
	case answer.Tunnel == named.ID:
		if !named.Proves(won.conn.Binding(), false, answer.Proof) {
			return Met{}, errForeign
		}
		return Met{Tunnel: named}, nil
	}
	m.Log.Info("the peer does not have the tunnel any more that this portal has", "tunnel", named.ID.String())
	m.Tunnels.Doubt(ctx)
	return m.found(won), nil
}

// unanswered is a carrier that can be of one tunnel only, at the TLS client: it is that
// tunnel's before the server has said HELLO, which saves the round trip, and no longer if
// that says anything else.
type unanswered struct {
	carrier.Conn
	of tunnel.Identity
}

// Run implements carrier.Conn.
func (u unanswered) Run(ctx context.Context, h carrier.Handler) error {
	return u.Conn.Run(ctx, answerer{h, u})
}

// answerer looks at the server's HELLO.
type answerer struct {
	carrier.Handler
	to unanswered
}

// Hello implements carrier.Handler.
func (a answerer) Hello(m wire.TunnelHello) error {
	switch {
	case m.Tunnel != a.to.of.ID:
		return errOther
	case !a.to.of.Proves(a.to.Binding(), false, m.Proof):
		return errForeign
	}
	return a.Handler.Hello(m)
}

// answer is the TLS server's side: it decides on the client's HELLO.
func (m *Meeting) answer(ctx context.Context, won taken, of *tunnel.Identity) (Met, error) {
	known, ok := m.Tunnels.Known(won.hello.Tunnel)
	if of != nil {
		known, ok = *of, won.hello.Tunnel == of.ID
	}
	if ok {
		if !known.Proves(won.conn.Binding(), true, won.hello.Proof) {
			return Met{}, errForeign
		}
		won.conn.SendHello(hello(won, known))
		return Met{Tunnel: known}, nil
	}
	if of != nil {
		return Met{}, errOther
	}
	m.Tunnels.Doubt(ctx)
	var own wire.TunnelHello
	if named, ok := m.Tunnels.Named(); ok {
		own = hello(won, named)
	}
	won.conn.SendHello(own)
	return m.found(won), nil
}

// found makes the identity of the new tunnel that begins with the carrier.
func (m *Meeting) found(won taken) Met {
	return Met{Tunnel: tunnel.NewIdentity(m.Session.Peer, won.conn.Binding()), New: true}
}

// hello names a tunnel on a carrier.
func hello(won taken, named tunnel.Identity) wire.TunnelHello {
	return wire.TunnelHello{Tunnel: named.ID, Proof: named.Proof(won.conn.Binding(), won.conn.Client())}
}
