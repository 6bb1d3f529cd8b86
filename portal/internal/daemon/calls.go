package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// The commands that a portal answers on its socket.
const (
	CallStatus  = "status"
	CallPing    = "ping"
	CallExplain = "explain"
	CallConnect = "connect" // goes on as a stream
	CallOutcome = "outcome" // of a connect
	CallMetrics = "metrics"
	CallKnown   = "known" // for doctor
)

// PingArgs asks for one round trip.
type PingArgs struct {
	Portal string `json:"portal"`
}

// PingResult is one round trip.
type PingResult struct {
	RTT  float64     `json:"rtt_ms"`
	Path string      `json:"path"` // how the tunnel goes
	Ways []peers.Way `json:"ways"` // each carrier, with its own round trip
}

// waysTime is how long a round trip may take on a carrier that the tunnel does not use.
const waysTime = 2 * time.Second

// ConnectArgs asks for a connection to a target. The outcome of the connection
// is asked for under its token, a random number.
type ConnectArgs struct {
	Portal string `json:"portal"`
	Target string `json:"target"`
	Token  string `json:"token"`
}

// OutcomeArgs waits for the end of a connect.
type OutcomeArgs struct {
	Token string `json:"token"`
}

func (p *Portal) serve() {
	p.socket.Handle(CallStatus, func(context.Context, json.RawMessage) (any, error) { return p.Status(), nil })
	p.socket.Handle(CallKnown, func(context.Context, json.RawMessage) (any, error) { return p.known(), nil })
	p.socket.Handle(CallPing, p.ping)
	p.socket.Handle(CallExplain, p.explain)
	p.socket.HandleStream(CallConnect, p.connect)
	p.socket.HandleLong(CallOutcome, p.outcome)
	p.socket.Handle(CallMetrics, func(context.Context, json.RawMessage) (any, error) { return p.Metrics().String(), nil })
}

func (p *Portal) ping(ctx context.Context, raw json.RawMessage) (any, error) {
	var args PingArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	g, ok := p.partner(args.Portal)
	if !ok {
		return nil, fmt.Errorf("ping %s: no grant joins this portal and %q: its policy has no forward between them, or the server has not sent it yet", args.Portal, args.Portal)
	}
	t, err := p.pool.Tunnel(ctx, args.Portal, g.ID())
	if err != nil {
		return nil, fmt.Errorf("ping %s: %w", args.Portal, err)
	}
	rtt, err := t.Ping(ctx)
	if err != nil {
		return nil, fmt.Errorf("ping %s: %w", args.Portal, err)
	}
	r := PingResult{RTT: float64(rtt.Microseconds()) / 1000}
	if s, _, ok := p.pool.Live(args.Portal); ok && s.Up {
		r.Path = s.Path
		if s.Relay != "" {
			r.Path += " " + s.Relay
		}
		if s.Address != "" {
			r.Path += " at " + s.Address
		}
	}
	each, cancel := context.WithTimeout(ctx, waysTime)
	defer cancel()
	r.Ways = p.pool.Ways(each, t)
	return r, nil
}

// partner returns a grant between this portal and another, in either direction;
// one that holds now, if there is one.
func (p *Portal) partner(name string) (found grant.Grant, ok bool) {
	for _, g := range p.keeper.Forwards() {
		if g.Exit.Name != name && (g.Entry.Name != name || g.Exit.Name != p.credentials.ID.Name) {
			continue
		}
		found, ok = g, true
		if g.Valid(p.credentials.Now()) == wire.ReasonNone {
			break
		}
	}
	return found, ok
}

// maxFinished is how many outcomes wait to be asked for.
const maxFinished = 64

// calls holds the connects under way, by token, and the last that ended.
type calls struct {
	mu       sync.Mutex // guards the following
	byToken  map[string]*call
	finished []string // oldest first
}

type call struct {
	done chan struct{}
	err  error // valid once done is closed
}

func newCalls() *calls { return &calls{byToken: make(map[string]*call)} }

func (c *calls) begin(token string) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if token == "" || c.byToken[token] != nil {
		return nil, errors.New("a connect needs a token of its own")
	}
	o := &call{done: make(chan struct{})}
	c.byToken[token] = o
	return o, nil
}

func (c *calls) find(token string) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byToken[token]
}

func (c *calls) end(token string, o *call, err error) {
	o.err = err
	close(o.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = append(c.finished, token)
	if len(c.finished) > maxFinished {
		delete(c.byToken, c.finished[0])
		c.finished = c.finished[1:]
	}
}

// connect joins the caller's socket with the target of a grant whose listener
// is stdio:.
func (p *Portal) connect(_ context.Context, raw json.RawMessage) (func(context.Context, net.Conn), error) {
	var args ConnectArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	target, err := endpoint.Parse(args.Target)
	if err != nil {
		return nil, err
	}
	g, ok := p.entry.Find(args.Portal, target)
	if !ok {
		return nil, fmt.Errorf("connect to %s at %s: %s", target, args.Portal, p.missing(args.Portal, target))
	}
	if err := p.current().Listen.Listen(g.Listen); err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", target, args.Portal, err)
	}
	c, err := p.calls.begin(args.Token)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, conn net.Conn) {
		_, err := p.entry.Carry(ctx, g, netip.AddrPort{}, conn)
		p.calls.end(args.Token, c, p.blame(g, err))
	}, nil
}

// missing says why there is no grant to connect with.
func (p *Portal) missing(portal string, target endpoint.Endpoint) string {
	for _, f := range p.forwards() {
		if f.Role == roleEntry && f.Peer == portal && f.Target == target.String() {
			if f.Listen == "stdio:" {
				return f.Why
			}
			return fmt.Sprintf("the forward %q listens at %s; connect needs one in the policy with from = %q", f.Name, f.Listen, p.credentials.ID.Name+" stdio:")
		}
	}
	return fmt.Sprintf("not granted; it needs a forward in the policy with from = %q and to = %q", p.credentials.ID.Name+" stdio:", portal+" "+target.String())
}

func (p *Portal) outcome(ctx context.Context, raw json.RawMessage) (any, error) {
	var args OutcomeArgs
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	c := p.calls.find(args.Token)
	if c == nil {
		return nil, errors.New("the connection is over")
	}
	select {
	case <-c.done:
		return nil, c.err
	case <-ctx.Done():
		return nil, errors.New("this portal is stopping")
	}
}

// blame turns the error of something that was opened under g into a sentence
// that names the machine.
func (p *Portal) blame(g grant.Grant, err error) error {
	var end *tunnel.EndError
	var none *peers.Unavailable
	switch {
	case err == nil:
		return nil
	case errors.As(err, &end) && end.Peer:
		return fmt.Errorf("%s said: %s", g.Exit.Name, reasonText(end.Reason, end.Text))
	case errors.As(err, &end):
		return fmt.Errorf("this portal said: %s", reasonText(end.Reason, end.Text))
	case errors.As(err, &none):
		return fmt.Errorf("no tunnel to %s: %s", g.Exit.Name, reasonText(none.Reason, none.Detail))
	}
	return err
}
