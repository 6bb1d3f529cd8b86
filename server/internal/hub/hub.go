// Package hub knows who is connected, and keeps the connected up to date: a
// portal has the grants that concern it, stamped fresh, knows which of the portals
// it shares a grant with are there, and holds tickets to meet them when we are not
// (file tickets.go). The hub hands what portals and
// relays ask for to the rules of package broker, one message at a time, and
// sends what they decide.
//
// One mutex guards all of it. Nothing under it blocks: sending only queues
// (package control), and a peer that does not read is cut off by its own queue.
package hub

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/ticketkey"
)

const (
	// switchTime is how long a connection of an identity holds against another
	// one of the same identity: two machines with one certificate change places
	// this often and no faster.
	switchTime = 10 * time.Second
	tickTime   = time.Second
	// careTime is how often stamps, ends of grants and certificates are looked
	// over.
	careTime = 30 * time.Second
)

// Options is what a Hub works with.
type Options struct {
	Registry    *registry.Registry
	Identities  Identities
	Credentials *identity.Credentials // the server's own: what it trusts, and what was revoked
	Stamp       ed25519.PrivateKey
	Audit       *audit.Log
	Log         *slog.Logger
	Tickets     *ticketkey.Keys
	Servers     []string // that portals are told of
	MaxSessions int      // of one portal
}

// Hub is the state of all connections.
type Hub struct {
	// Constant.
	registry   *registry.Registry
	identities Identities
	own        *identity.Credentials
	stamp      ed25519.PrivateKey
	audit      *audit.Log
	log        *slog.Logger
	keys       *ticketkey.Keys
	servers    []string
	counts     counts

	mu       sync.Mutex // guards the following
	broker   *broker.Broker
	portals  map[string]*connection[wire.ToPortal]
	relays   map[string]*connection[wire.ToRelay]
	hasRelay bool              // as portals were told
	places   []wire.RelayPlace // as portals were told
	tickets  tickets
	stamped  map[wire.GrantID]grant.Grant // the freshest stamp of each grant that was sent
	switched map[identity.ID]time.Time    // when a connection last took another's place
	contests map[identity.ID]*Contest
	ended    time.Time // grants that ended until then were taken back
	ticked   time.Time // the last turn of Run
}

// link is the half of a control connection that the hub uses.
type link[Out wire.Message] interface {
	Send(Out)
	Close(wire.Reason, string)
	Probe()
}

// connection is a portal or relay that is connected.
type connection[Out wire.Message] struct {
	link      link[Out]
	peer      identity.Peer
	presented []*x509.Certificate // leaf first
	address   netip.AddrPort
	over      Over
	software  string
	since     time.Time
	asked     time.Time // for a sign of life, since another came that may not take its place yet; zero: it was not
	told      bool      // it has said which revocations it holds, and hears of new ones
	renewal   renewal
	until     map[wire.GrantID]time.Time // of a portal: the end of each stamp it was sent
	measured  bool                       // of a portal: it has said its round trips to relays
}

// New returns a hub that nobody is connected to.
func New(o Options) *Hub {
	h := &Hub{
		registry: o.Registry, identities: o.Identities, own: o.Credentials, stamp: o.Stamp, audit: o.Audit, log: o.Log, keys: o.Tickets, servers: o.Servers,
		portals:  make(map[string]*connection[wire.ToPortal]),
		relays:   make(map[string]*connection[wire.ToRelay]),
		stamped:  make(map[wire.GrantID]grant.Grant),
		switched: make(map[identity.ID]time.Time),
		contests: make(map[identity.ID]*Contest),
		ended:    time.Now(),
		ticked:   time.Now(),
		tickets:  newTickets(),
	}
	h.broker = broker.New(rules{h.registry}, outlet{h}, o.MaxSessions)
	h.age(time.Now())
	return h
}

// Run does what time brings, until ctx is cancelled.
func (h *Hub) Run(ctx context.Context) error {
	tick, care := time.NewTicker(tickTime), time.NewTicker(careTime)
	defer tick.Stop()
	defer care.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	settling := true // the timer runs
	for {
		select {
		case <-tick.C:
			h.tick(time.Now())
		case <-care.C:
			h.care(time.Now())
		case <-h.tickets.wake:
			if !settling {
				settling = true
				settle.Reset(0)
			}
		case <-settle.C:
			if settling = h.settle(time.Now()); settling {
				settle.Reset(ticketPause)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// SetMaxSessions changes Options.MaxSessions. Sessions that are above it go on.
func (h *Hub) SetMaxSessions(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broker.SetMaxSessions(n)
}

func (h *Hub) tick(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ticked = now
	h.broker.Tick(now)
	h.tellPlaces()
}

// Pulse returns how many portals and relays are connected, and when Run has last taken
// a turn.
func (h *Hub) Pulse() (portals, relays int, ticked time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.portals), len(h.relays), h.ticked
}

// tellPlaces tells all portals where to measure relays, if that has changed. It
// is looked at with each tick: many relays that come at once are told once. The
// mutex is held.
func (h *Hub) tellPlaces() {
	places := h.broker.Places()
	if slices.EqualFunc(places, h.places, samePlace) {
		return
	}
	h.places = places
	for _, c := range h.portals {
		c.link.Send(wire.Relays{Relays: places})
	}
}

func samePlace(a, b wire.RelayPlace) bool {
	return a.Name == b.Name && a.Port == b.Port && slices.Equal(a.Addresses, b.Addresses)
}

// rules answers the broker's questions from the registry.
type rules struct{ registry *registry.Registry }

func (r rules) Look(id wire.GrantID, a, b string, now time.Time) (string, wire.Reason) {
	g, ok := r.registry.Grant(id)
	if !ok || !(g.Entry.Name == a && g.Exit.Name == b || g.Entry.Name == b && g.Exit.Name == a) {
		return "", wire.ReasonNotGranted
	}
	return g.Forward, registry.Holds(g.Permission, now)
}

func (r rules) Joined(a, b string, now time.Time) bool { return r.registry.Joined(a, b, now) }

func (r rules) Pin(a, b string, now time.Time) string { return r.registry.Pin(a, b, now) }

// outlet sends what the broker decides. The hub's mutex is held.
type outlet struct{ h *Hub }

func (o outlet) ToPortal(name string, m wire.ToPortal) {
	if c := o.h.portals[name]; c != nil {
		c.link.Send(m)
	}
}

func (o outlet) ToRelay(name string, m wire.ToRelay) {
	if c := o.h.relays[name]; c != nil {
		c.link.Send(m)
	}
}

func (o outlet) ProbeRelay(name string) {
	if c := o.h.relays[name]; c != nil {
		c.link.Probe()
	}
}

func (o outlet) DropRelay(name, text string) {
	if c := o.h.relays[name]; c != nil {
		o.h.log.Warn("relay broke the rules", "relay", name, "reason", text)
		c.link.Close(wire.ReasonProtocol, text)
	}
}

func (o outlet) Record(r audit.Record) {
	o.h.audit.Write(r)
	args := []any{"answer", r.Answer, "portal", r.Portal, "peer", r.Peer}
	for _, f := range [][2]string{{"forward", r.Forward}, {"relay", r.Relay}, {"reason", r.Reason}} {
		if f[1] != "" {
			args = append(args, f[0], f[1])
		}
	}
	if r.Session != nil {
		args = append(args, "session", *r.Session)
	}
	o.h.log.Info("session", args...)
}

func addrPortOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // TCP's or UDP's
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
