package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/hub"
)

// peer is a scripted portal or relay.
type peer[In, Out wire.Message] struct {
	t     testing.TB
	name  string
	conn  *control.Conn[In, Out]
	hello wire.Welcome
	in    chan In
	ended chan error
}

func (r *rig) portal(name string) *peer[wire.ToPortal, wire.FromPortal] {
	return connect[wire.ToPortal, wire.FromPortal](r, name, wire.ParseToPortal)
}

// relayReady is what relays offer here.
var relayReady = wire.RelayReady{First: 20000, Last: 20999, SharedTCP: 443, Capacity: 100, Transports: wire.TransportSplice | wire.TransportPacket}

func (r *rig) relay(name string) *peer[wire.ToRelay, wire.FromRelay] {
	r.t.Helper()
	p := connect[wire.ToRelay, wire.FromRelay](r, name, wire.ParseToRelay)
	p.conn.Send(relayReady)
	r.until("relay "+name+" is ready", func() bool {
		var relays []hub.RelayView
		r.ask(CommandRelays, &relays)
		i := slices.IndexFunc(relays, func(v hub.RelayView) bool { return v.Name == name })
		return relays[i].State != nil && relays[i].State.Ready
	})
	return p
}

func dialer[In, Out wire.Message](r *rig, name string, parse func(wire.Type, []byte) (In, error)) *control.Dialer[In, Out] {
	return &control.Dialer[In, Out]{Credentials: r.credentials[name], Software: "test 1", Parse: parse, Log: slog.New(slog.DiscardHandler)}
}

func connect[In, Out wire.Message](r *rig, name string, parse func(wire.Type, []byte) (In, error)) *peer[In, Out] {
	r.t.Helper()
	conn, welcome, err := dialer[In, Out](r, name, parse).Dial(r.t.Context(), r.cfg.Address)
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	p := &peer[In, Out]{t: r.t, name: name, conn: conn, hello: welcome, in: make(chan In, 1000), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		p.ended <- conn.Run(ctx, func(m In) error { p.in <- m; return nil })
		close(p.in)
	}()
	r.t.Cleanup(cancel)
	return p
}

// leave closes the connection and waits until it is closed.
func (p *peer[In, Out]) leave() {
	p.t.Helper()
	p.conn.Close(wire.ReasonShutdown, "")
	p.wantEnd()
}

func (p *peer[In, Out]) wantEnd() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(patience):
		p.t.Fatalf("%s: the connection does not end", p.name)
		return nil
	}
}

// wantGoodbye waits for the end of the connection, which the server must have
// given this reason.
func (p *peer[In, Out]) wantGoodbye(reason wire.Reason) {
	p.t.Helper()
	var bye *control.Goodbye
	if err := p.wantEnd(); !errors.As(err, &bye) || bye.Reason != reason {
		p.t.Fatalf("%s: the connection ended with %v, want %v", p.name, err, reason)
	}
}

// next takes the next message, which must be an M.
func next[M, In, Out wire.Message](p *peer[In, Out]) M {
	p.t.Helper()
	var want M
	late := time.After(patience)
	for {
		select {
		case m, ok := <-p.in:
			if !ok {
				p.t.Fatalf("%s: the connection ended with %v, want %T", p.name, p.wantEnd(), want)
			}
			got, ok := any(m).(M)
			if ok && (any(want) != nil || !beside(m)) {
				return got
			}
			if !beside(m) {
				p.t.Fatalf("%s got %#v, want %T", p.name, m, want)
			}
		case <-late:
			p.t.Fatalf("%s got nothing, want %T", p.name, want)
		}
	}
}

// beside reports whether a message comes beside the story: relays come and go, and
// so does what is for the time without a server, and the domain's authorities.
func beside(m wire.Message) bool {
	switch m.(type) {
	case wire.RelayState, wire.OtherRelays, wire.Relays, wire.Servers, wire.Ticket, wire.TicketKeys, wire.Authorities:
		return true
	}
	return false
}

// grants takes what a portal is sent first: its grants, then the peers. It
// returns the grants by forward, and who is online.
func (r *rig) grants(p *peer[wire.ToPortal, wire.FromPortal], peers int) (map[string]grant.Grant, map[string]bool) {
	r.t.Helper()
	list := make(map[string]grant.Grant)
	for {
		m := next[wire.ToPortal](p)
		if put, ok := m.(wire.PutGrant); ok {
			g := r.verify(put)
			list[g.Forward] = g
			continue
		}
		if _, ok := m.(wire.GrantsComplete); !ok {
			r.t.Fatalf("%s got %#v among its grants", p.name, m)
		}
		break
	}
	online := make(map[string]bool)
	for range peers {
		m := next[wire.PeerState](p)
		online[m.Name] = m.Online
	}
	return list, online
}

// verify checks a grant as a portal does.
func (r *rig) verify(m wire.PutGrant) grant.Grant {
	r.t.Helper()
	g, err := grant.Parse(m.Grant)
	if err != nil {
		r.t.Fatal(err)
	}
	public := func(file string) []ed25519.PublicKey {
		signer, err := admin.LoadSigner(file)
		if err != nil {
			r.t.Fatal(err)
		}
		return []ed25519.PublicKey{signer.Public().(ed25519.PublicKey)}
	}
	keys := grant.Keys{Policy: public(r.cfg.PolicyKey), Stamp: public(r.cfg.StampKey)}
	if reason := g.Verify(keys); reason != wire.ReasonNone {
		r.t.Fatalf("grant of %s: %v", g.Forward, reason)
	}
	if reason := g.Valid(time.Now()); reason != wire.ReasonNone {
		r.t.Fatalf("grant of %s: %v", g.Forward, reason)
	}
	return g
}

// raw dials the server without our client: what a stranger can send.
func (r *rig) raw() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.cfg.Address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// rawTLS is a proven connection without any message.
func (r *rig) rawTLS(name string) *tls.Conn {
	r.t.Helper()
	c := tls.Client(r.raw(), r.credentials[name].ClientTLS(identity.ProtocolControl, identity.Expect(identity.Server, "")))
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return c
}
