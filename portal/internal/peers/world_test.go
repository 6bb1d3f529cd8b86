package peers

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// world is two portals, relays that both reach, and a server, in a bubble.
type world struct {
	near       LAN
	t          *testing.T
	ann, plant *portal

	mu       sync.Mutex // guards the following, and the portals' fields
	away     time.Time  // since when the server is; zero: it is there
	relays   []*relay   // in the order in which the server takes them
	wire     *relay     // joins the portals directly; gone at first
	sessions map[wire.SessionID]*placed
	asked    []request
	done     []finished
	tasks    sync.WaitGroup // of the server
}

// placed is a session as the server knows it.
type placed struct {
	portals [2]*portal
	relay   *relay
}

// request is what a portal has asked the server for.
type request struct {
	at   time.Time
	by   string
	lost string
}

// finished is a session that a portal has given back.
type finished struct {
	by      string
	session wire.SessionID
	reason  wire.Reason
}

// portal is a Pool with all that it asks.
type portal struct {
	w       *world
	name    string
	own     *identity.Credentials
	pool    *Pool
	tickets []wire.Ticket
	joined  bool             // a grant joins it with the other
	paths   grant.Direct     // that it allows
	secret  [32]byte         // of that grant
	seekers []*seeker        // that its pool has opened
	named   identity.KeyHash // the other's key by that grant; zero: the one it has
	heard   func(relay string)
}

const linger = time.Minute

// inWorld runs a story in a world whose server knows the named relays. Every
// goroutine of it must have ended when the story has.
func inWorld(t *testing.T, story func(t *testing.T, w *world), relays ...string) {
	t.Helper()
	inWorldWith(t, nil, story, relays...)
}

// inWorldWith is inWorld for portals that look for each other by near, if that is not nil.
func inWorldWith(t *testing.T, near LAN, story func(t *testing.T, w *world), relays ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, near: near, sessions: make(map[wire.SessionID]*placed), wire: newRelay("")}
		w.wire.gone = true
		for _, name := range relays {
			w.relays = append(w.relays, newRelay(name))
		}
		authority := identitytest.New(t)
		w.ann, w.plant = w.portal(authority, "ann"), w.portal(authority, "plant")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, p := range []*portal{w.ann, w.plant} {
			running.Go(func() {
				if err := p.pool.Run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		t.Cleanup(func() { // still in the bubble
			cancel()
			running.Wait()
			w.tasks.Wait()
			w.ann.wantNothingLeft()
			w.plant.wantNothingLeft()
			for _, r := range append(w.relays, w.wire) {
				r.cut()
			}
			time.Sleep(time.Minute) // until what was under way has arrived nowhere
		})
		story(t, w)
	})
}

func (w *world) portal(authority *identitytest.Authority, name string) *portal {
	p := &portal{w: w, name: name, own: authority.Credentials(identity.Portal, name), joined: true}
	p.pool = New(Config{
		Credentials: p.own, Server: p, Finder: p, Tickets: p, Joined: p.isJoined, Handler: p,
		Proves: func(_ wire.GrantID, _ string, key identity.KeyHash) bool { return p.names(key) },
		Names: func(_ string, key identity.KeyHash) (named, joined bool) {
			_, joined = p.isJoined("")
			return p.names(key), joined
		},
		Recheck: p.own.Recheck, Paths: p.allows, Directs: seekers{p},
		LAN: w.near, Secret: p.secretWith, Partners: p.partners,
		Budget: tunnel.NewBudget(1 << 30), Linger: linger, Log: slog.New(slog.DiscardHandler),
	})
	return p
}

func (w *world) relay(name string) *relay {
	i := slices.IndexFunc(w.relays, func(r *relay) bool { return r.name == name })
	return w.relays[i]
}

func (w *world) other(p *portal) *portal {
	if p == w.ann {
		return w.plant
	}
	return w.ann
}

// The server.

// OpenSession implements Server: whoever has lost a relay gets another, and who
// asks for what the other has just asked for gets the same.
func (p *portal) OpenSession(ctx context.Context, peer string, _ wire.GrantID, _ wire.Transports, lost string) (wire.Session, error) {
	w := p.w
	w.mu.Lock()
	w.asked = append(w.asked, request{time.Now(), p.name, lost})
	away := !w.away.IsZero()
	w.mu.Unlock()
	if away {
		return wire.Session{}, &control.Refused{Reason: wire.ReasonServerGone}
	}
	if err := pass(ctx, 2*hop); err != nil {
		return wire.Session{}, err
	}
	w.mu.Lock()
	var id wire.SessionID
	var ended []wire.SessionID
	for at, s := range w.sessions {
		if s.relay.name != lost {
			id = at
		} else {
			ended = append(ended, at)
			delete(w.sessions, at)
		}
	}
	w.mu.Unlock()
	for _, old := range ended {
		w.ann.pool.Ended(old, wire.ReasonReplaced)
		w.plant.pool.Ended(old, wire.ReasonReplaced)
	}
	if !id.IsZero() {
		info := w.told(id, p)
		p.pool.Accept(info) // again
		return info, nil
	}
	for _, r := range w.relays {
		if r.name != lost || len(w.relays) == 1 {
			return w.told(w.meet(p, r, wire.SessionID{}), p), nil
		}
	}
	return wire.Session{}, &control.Refused{Reason: wire.ReasonNoRelay}
}

// meet opens a session at a relay, in the place of another or of none, and tells
// both.
func (w *world) meet(opener *portal, r *relay, replaces wire.SessionID) wire.SessionID {
	id := wire.NewSessionID()
	w.mu.Lock()
	w.sessions[id] = &placed{[2]*portal{opener, w.other(opener)}, r}
	w.mu.Unlock()
	for _, p := range []*portal{opener, w.other(opener)} {
		info := w.told(id, p)
		info.Replaces = replaces
		p.pool.Accept(info)
	}
	return id
}

// told is what a portal is told of a session.
func (w *world) told(id wire.SessionID, p *portal) wire.Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sessions[id]
	info := wire.Session{ID: id, Peer: s.portals[1].name, Relay: wire.RelayAccess{Name: s.relay.name}}
	if p == s.portals[1] {
		info.Leg, info.Peer = 1, s.portals[0].name
	}
	return info
}

// Done implements Server: the other portal is told that the session has ended.
func (p *portal) Done(id wire.SessionID, reason wire.Reason) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, finished{p.name, id, reason})
	if w.sessions[id] == nil {
		return
	}
	delete(w.sessions, id)
	w.tasks.Go(func() {
		if pass(w.t.Context(), 2*hop) == nil {
			w.other(p).pool.Ended(id, reason)
		}
	})
}

// Server implements Server.
func (*portal) Server() netip.AddrPort { return netip.MustParseAddrPort("198.51.100.1:443") }

// Connected implements Server.
func (p *portal) Connected() (bool, time.Time) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.away.IsZero(), p.w.away
}

// serverGoes and serverComes are the server's outage.
func (w *world) serverGoes() {
	w.mu.Lock()
	w.away = time.Now()
	w.mu.Unlock()
	w.ann.pool.Connected(false)
	w.plant.pool.Connected(false)
}

func (w *world) serverComes() {
	w.mu.Lock()
	w.away = time.Time{}
	w.mu.Unlock()
	w.ann.pool.Connected(true)
	w.plant.pool.Connected(true)
}

// requests takes what was asked since the last call.
func (w *world) requests() []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.asked
	w.asked = nil
	return list
}

// session finds the session that a status names.
func (w *world) session(s Status) wire.SessionID {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.sessions {
		if id.String() == s.Session {
			return id
		}
	}
	w.t.Fatalf("the server does not know the session of %+v", s)
	return wire.SessionID{}
}

// end has the server end a session.
func (w *world) end(id wire.SessionID, reason wire.Reason) {
	w.mu.Lock()
	delete(w.sessions, id)
	w.mu.Unlock()
	w.ann.pool.Ended(id, reason)
	w.plant.pool.Ended(id, reason)
}

// ungrant takes the last grant that joins the two.
func (w *world) ungrant() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ann.joined, w.plant.joined = false, false
}

// wantSessions wants the server to know these sessions and no other.
func (w *world) wantSessions(ids ...wire.SessionID) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if w.sessions[id] == nil {
			w.t.Errorf("session %v is over", id)
		}
	}
	if len(w.sessions) != len(ids) {
		w.t.Errorf("the server has %d sessions, want %d", len(w.sessions), len(ids))
	}
}

// wantDone wants a portal to have given a session back.
func (w *world) wantDone(p *portal, id wire.SessionID, reason wire.Reason) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.done, finished{p.name, id, reason}) {
		w.t.Errorf("given back: %v; want %v by %s, %v", w.done, id, p.name, reason)
	}
}

// What else a Pool asks.

// For and Peers implement Tickets.
func (p *portal) For(peer string) (list []wire.Ticket) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, t := range p.tickets {
		if t.Peer == peer {
			list = append(list, t)
		}
	}
	return list
}

func (p *portal) Peers() (names []string) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, t := range p.tickets {
		names = append(names, t.Peer)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// giveTickets gives both portals a ticket of every relay, for that long.
func (w *world) giveTickets(life time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.relays {
		id := ticket.Session(wire.NewSecret(), w.ann.name, w.plant.name, time.Now().Add(life))
		for i, p := range []*portal{w.ann, w.plant} {
			p.tickets = append(p.tickets, wire.Ticket{Session: id, Leg: uint8(i), Peer: w.other(p).name, Relay: wire.RelayAccess{Name: r.name}})
		}
	}
}

func (p *portal) isJoined(string) (wire.GrantID, bool) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return wire.GrantID{1}, p.joined
}

// allows is Config.Paths.
func (p *portal) allows(string) grant.Direct {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.paths
}

// setPaths changes what the grant allows.
func (w *world) setPaths(paths grant.Direct) {
	w.mu.Lock()
	w.ann.paths, w.plant.paths = paths, paths
	w.mu.Unlock()
	w.ann.pool.Review()
	w.plant.pool.Review()
}

// names reports whether the grant names a key of the other.
func (p *portal) names(key identity.KeyHash) bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if !p.named.IsZero() {
		return key == p.named
	}
	return key == p.w.other(p).own.Key()
}

// Listen, Leg and Ticket implement Finder.
func (p *portal) Listen(heard func(relay string)) { p.heard = heard }

func (p *portal) Leg(s wire.Session, _ netip.Addr) (Leg, error) {
	if !slices.ContainsFunc(p.w.relays, func(r *relay) bool { return r.name == s.Relay.Name }) {
		return nil, fmt.Errorf("relay %q offers no way", s.Relay.Name)
	}
	return &theLeg{p, p.w.relay(s.Relay.Name), s}, nil
}

func (p *portal) Ticket(t wire.Ticket, server netip.Addr) (Leg, error) {
	return p.Leg(wire.Session{ID: t.Session, Leg: t.Leg, Peer: t.Peer, Relay: t.Relay}, server)
}

// Open implements tunnel.Handler: every target echoes.
func (p *portal) Open(context.Context, tunnel.From, wire.Open) (net.Conn, error) {
	return echo(), nil
}
