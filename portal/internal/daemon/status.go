package daemon

import (
	"fmt"
	"time"

	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/entry"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/wire"
)

// Status is what "netport-portal status --json" prints.
type Status struct {
	Portal      string         `json:"portal"`
	Domain      string         `json:"domain"`
	Version     string         `json:"version"`
	Started     time.Time      `json:"started"`
	Certificate time.Time      `json:"certificate_until"`
	Identity    keeper.Status  `json:"identity"`
	Server      control.Status `json:"server"`
	Forwards    []Forward      `json:"forwards"`
	Tunnels     []peers.Status `json:"tunnels"`
	Unreachable uint64         `json:"udp_unreachable"`  // datagrams to targets where no one listened
	Oversized   uint64         `json:"udp_oversized"`    // datagrams too large for the way to their target
	Limited     uint64         `json:"udp_limited"`      // datagrams above the limits of their grants
	Refusals    []Refusal      `json:"refusals"`         // of grants, the newest first
	Router      *Router        `json:"router,omitempty"` // nil: it is not asked to map ports
	Reload      *reload.Report `json:"reload,omitempty"` // the last time that the configuration was read anew
}

// Refusal is a grant that was not taken from the server, or shown by a peer in
// vain. The forward and the version are what the grant says of itself.
type Refusal struct {
	At      time.Time `json:"at"`
	Forward string    `json:"forward,omitempty"`
	Peer    string    `json:"peer,omitempty"` // who has shown it; empty: the server
	Version uint64    `json:"policy_version,omitempty"`
	Reason  string    `json:"reason"`
	Text    string    `json:"text"`
}

// The states of a forward.
const (
	Up   = "up"
	Down = "down"
)

// Forward is one forward that this portal has part in. It is up only if what is
// this portal's part works and the other portal can be reached now; Why says
// how that is known, or what is missing.
type Forward struct {
	Name     string    `json:"name"`
	Role     string    `json:"role"` // entry or exit: this portal's
	Peer     string    `json:"peer"`
	Listen   string    `json:"listen"`
	Target   string    `json:"target"`
	State    string    `json:"state"`
	Why      string    `json:"why"`
	Until    time.Time `json:"until"`              // end of the grant unless it is stamped anew
	Rank     uint8     `json:"rank,omitempty"`     // among the targets of the listener
	InUse    bool      `json:"in_use,omitempty"`   // of several targets, new connections go to this one
	Accepted uint64    `json:"accepted,omitempty"` // connections and flows of the listener, at the entry
	Failed   uint64    `json:"failed,omitempty"`   // of these, how many were refused or cut
	Dropped  uint64    `json:"dropped,omitempty"`  // datagrams that found no room
	// Forbidden counts the connections and datagrams of clients whose address is
	// not granted, at the entry.
	Forbidden uint64 `json:"forbidden,omitempty"`
	// Foreign counts the connections of users whom the configuration does not let
	// connect.
	Foreign uint64 `json:"foreign,omitempty"`
	Terms   *Terms `json:"terms,omitempty"` // nil: the grant has none
}

// Terms are the terms of a grant, and what is used of its limits as far as this
// portal knows: the exit counts.
type Terms struct {
	Direct     string    `json:"direct,omitempty"`
	Hours      string    `json:"hours,omitempty"`
	Clients    string    `json:"clients,omitempty"`
	Rate       uint64    `json:"rate,omitempty"` // bytes a second
	Streams    uint32    `json:"streams,omitempty"`
	Open       uint32    `json:"streams_open,omitempty"`
	Month      uint64    `json:"month,omitempty"` // bytes
	MonthUsed  uint64    `json:"month_used,omitempty"`
	MonthUntil time.Time `json:"month_until,omitzero"`
}

// The roles in a forward.
const (
	roleEntry = "entry"
	roleExit  = "exit"
)

// Status returns how the portal is now.
func (p *Portal) Status() Status {
	counters := p.exit.Counters()
	return Status{
		Portal: p.credentials.ID.Name, Domain: p.credentials.ID.Domain, Version: command.Version,
		Started:     p.started.UTC().Truncate(time.Second),
		Certificate: p.credentials.Leaf().NotAfter.UTC(), Identity: p.identity.Status(),
		Server:      p.client.Status(),
		Forwards:    p.forwards(),
		Tunnels:     p.pool.Status(),
		Router:      p.router(),
		Unreachable: counters.Unreachable, Oversized: counters.Oversized, Limited: counters.Limited,
		Refusals: p.refusals(func(grants.Refusal) bool { return true }),
		Reload:   p.reload.Last(),
	}
}

// refusals returns the last refusals of some kind, the newest first.
func (p *Portal) refusals(want func(grants.Refusal) bool) []Refusal {
	list := []Refusal{}
	for _, r := range p.keeper.Refusals() {
		if want(r) {
			list = append(list, Refusal{r.At.UTC().Truncate(time.Second), r.Forward, r.Peer, r.Version, r.Reason.String(), r.Text})
		}
	}
	return list
}

// forwards lists every forward of which a grant is held, once per role.
func (p *Portal) forwards() []Forward {
	open := make(map[grants.Pair]entry.State)
	for _, s := range p.entry.States() {
		open[grants.PairOf(s.Grant.Permission)] = s
	}
	list := []Forward{}
	for _, g := range p.keeper.Forwards() {
		if g.Entry.Name == p.credentials.ID.Name {
			list = append(list, p.entryForward(g, open[grants.PairOf(g.Permission)]))
		}
		if g.Exit.Name == p.credentials.ID.Name {
			list = append(list, p.exitForward(g))
		}
	}
	return list
}

func (p *Portal) entryForward(g grant.Grant, s entry.State) Forward {
	f := Forward{
		Name: g.Forward, Role: roleEntry, Peer: g.Exit.Name, Listen: g.Listen.String(), Target: g.Target.String(), Rank: g.Rank,
		Until: g.Ends(), Accepted: s.Accepted, Failed: s.Refused, Dropped: s.Dropped, Forbidden: s.Forbidden, Foreign: s.Foreign, Terms: termsOf(g),
		InUse: s.Targets > 1 && s.InUse,
	}
	reached, how := p.reach(f.Peer)
	path := p.path(f.Peer, g.Terms)
	switch {
	case g.Valid(p.credentials.Now()) != wire.ReasonNone:
		f.State, f.Why, f.InUse = Down, p.invalid(g), false
	case !s.Listening && s.Error == "":
		f.State, f.Why = Down, "the listener is being opened"
	case !s.Listening:
		f.State, f.Why = Down, s.Error
	case !reached:
		f.State, f.Why = Down, how
	case path != nil:
		f.State, f.Why = Down, path.Error()
	case s.Failed != "":
		f.State, f.Why = Down, "passed over for a moment: "+s.Failed
	case s.Targets > 1 && s.InUse:
		f.State, f.Why = Up, "in use; listening; "+how
	case s.Targets > 1:
		f.State, f.Why = Up, "in reserve; listening; "+how
	default:
		f.State, f.Why = Up, "listening; "+how
	}
	return f
}

func (p *Portal) exitForward(g grant.Grant) Forward {
	f := Forward{
		Name: g.Forward, Role: roleExit, Peer: g.Entry.Name, Listen: g.Listen.String(), Target: g.Target.String(), Rank: g.Rank,
		Until: g.Ends(), Terms: termsOf(g),
	}
	spent := ""
	if f.Terms != nil {
		use := p.exit.Use(g)
		f.Terms.Open = use.Open
		if g.Month != 0 {
			f.Terms.MonthUsed, f.Terms.MonthUntil = use.Month, use.Until
			if use.Month >= g.Month {
				spent = fmt.Sprintf("the %d bytes of the month are used up; it ends at %s", g.Month, stamp(use.Until))
			}
		}
	}
	reached, how := p.reach(f.Peer)
	path := p.path(f.Peer, g.Terms)
	switch err := p.current().Dial.Target(g.Target); {
	case g.Valid(p.credentials.Now()) != wire.ReasonNone:
		f.State, f.Why = Down, p.invalid(g)
	case err != nil:
		f.State, f.Why = Down, err.Error()
	case spent != "":
		f.State, f.Why = Down, spent
	case !reached:
		f.State, f.Why = Down, how
	case path != nil:
		f.State, f.Why = Down, path.Error()
	default:
		f.State, f.Why = Up, "may be dialled; "+how
	}
	return f
}

// termsOf returns the terms of a grant for people; nil if there are none.
func termsOf(g grant.Grant) *Terms {
	if g.Terms == (grant.Terms{}) {
		return nil
	}
	t := &Terms{Rate: g.Rate, Streams: g.Streams, Month: g.Month, Clients: g.Clients.String()}
	if g.Direct != grant.DirectAny {
		t.Direct = g.Direct.String()
	}
	if !g.Hours.IsZero() {
		t.Hours = g.Hours.String()
	}
	return t
}

// invalid says why a grant does not hold now.
func (p *Portal) invalid(g grant.Grant) string {
	now := p.credentials.Now()
	switch {
	case now.Before(g.From):
		return fmt.Sprintf("the grant begins at %s by the server's clock, and the clock here says %s", stamp(g.From), stamp(now))
	case !g.End.IsZero() && !now.Before(g.End):
		return "the policy's until has passed at " + stamp(g.End)
	case g.Valid(now) == wire.ReasonOutsideHours:
		text := fmt.Sprintf("it is outside the policy's hours (%s)", g.Hours)
		if next := g.Hours.Next(now); !next.IsZero() {
			text += "; they begin at " + stamp(next)
		}
		return text
	}
	return fmt.Sprintf("the server's stamp ended at %s; a new one comes with the next connection to the server", stamp(g.Until))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// reach reports whether another portal can be reached now, and how that is
// known.
func (p *Portal) reach(peer string) (bool, string) {
	if s, _, ok := p.pool.Live(peer); ok {
		switch {
		case s.Up && s.Waiting.IsZero():
			return true, fmt.Sprintf("tunnel to %s %s", peer, where(s))
		case s.Streams+s.Flows > 0:
			return false, waiting(s)
		}
	}
	server := p.client.Status()
	if !server.Connected {
		return false, fmt.Sprintf("no tunnel to %s, and no connection to a server to open one (since %s)", peer, stamp(server.Since))
	}
	switch online, known := p.client.Online(peer); {
	case !known:
		return false, fmt.Sprintf("no tunnel to %s, and the server has not said whether it is connected", peer)
	case !online:
		return false, fmt.Sprintf("%s is not connected to the server", peer)
	}
	if !p.client.Relay() {
		return false, fmt.Sprintf("%s is connected to the server, and no relay is", peer)
	}
	if at, err := p.pool.Failed(peer); err != nil {
		return false, fmt.Sprintf("the server says %s is connected, but at %s: %v", peer, stamp(at), err)
	}
	return true, fmt.Sprintf("the server says %s is connected", peer)
}

// where says how a tunnel goes now.
func where(s peers.Status) string {
	if s.Relay == "" {
		return "on a direct path"
	}
	return "over relay " + s.Relay
}

// waiting says that a tunnel has no way to its peer, and for how long.
func waiting(s peers.Status) string {
	return fmt.Sprintf("the tunnel to %s has been waiting for a way back for %v; %d connections wait with it",
		s.Peer, time.Since(s.Waiting).Truncate(time.Second), s.Streams+s.Flows)
}
