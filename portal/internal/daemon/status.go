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
	"github.com/netport/netport/proto/wire"
)

// Status is what "netport-portal status --json" prints.
type Status struct {
	Portal      string         `json:"portal"`
	Domain      string         `json:"domain"`
	Version     string         `json:"version"`
	Started     time.Time      `json:"started"`
	Certificate time.Time      `json:"certificate_until"`
	Server      control.Status `json:"server"`
	Forwards    []Forward      `json:"forwards"`
	Tunnels     []peers.Status `json:"tunnels"`
	Unreachable uint64         `json:"udp_unreachable"` // datagrams to targets where no one listened
	Oversized   uint64         `json:"udp_oversized"`   // datagrams too large for the way to their target
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
	Accepted uint64    `json:"accepted,omitempty"` // connections and flows, at the entry
	Failed   uint64    `json:"failed,omitempty"`   // of these, how many were refused or cut
	Dropped  uint64    `json:"dropped,omitempty"`  // datagrams that found no room
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
		Certificate: p.credentials.Leaf().NotAfter.UTC(),
		Server:      p.client.Status(),
		Forwards:    p.forwards(),
		Tunnels:     p.pool.Status(),
		Unreachable: counters.Unreachable, Oversized: counters.Oversized,
	}
}

// forwards lists every forward of which a grant is held, once per role.
func (p *Portal) forwards() []Forward {
	open := make(map[grants.Pair]entry.State)
	for _, s := range p.entry.States() {
		open[grants.PairOf(s.Grant.Permission)] = s
	}
	list := []Forward{}
	seen := make(map[grants.Pair]bool)
	for _, g := range p.keeper.Held() {
		pair := grants.PairOf(g.Permission)
		if seen[pair] { // a second grant of the same ends
			continue
		}
		seen[pair] = true
		if g.Entry.Is(p.self) {
			list = append(list, p.entryForward(g, open[pair]))
		}
		if g.Exit.Is(p.self) {
			list = append(list, p.exitForward(g))
		}
	}
	return list
}

func (p *Portal) entryForward(g grant.Grant, s entry.State) Forward {
	f := Forward{
		Name: g.Forward, Role: roleEntry, Peer: g.Exit.Name, Listen: g.Listen.String(), Target: g.Target.String(),
		Until: g.Ends(), Accepted: s.Accepted, Failed: s.Refused, Dropped: s.Dropped,
	}
	reached, how := p.reach(f.Peer)
	switch {
	case g.Valid(p.credentials.Now()) != wire.ReasonNone:
		f.State, f.Why = Down, p.invalid(g)
	case !s.Listening && s.Error == "":
		f.State, f.Why = Down, "the listener is being opened"
	case !s.Listening:
		f.State, f.Why = Down, s.Error
	case !reached:
		f.State, f.Why = Down, how
	default:
		f.State, f.Why = Up, "listening; "+how
	}
	return f
}

func (p *Portal) exitForward(g grant.Grant) Forward {
	f := Forward{
		Name: g.Forward, Role: roleExit, Peer: g.Entry.Name, Listen: g.Listen.String(), Target: g.Target.String(),
		Until: g.Ends(),
	}
	reached, how := p.reach(f.Peer)
	switch err := p.config.Dial.Target(g.Target); {
	case g.Valid(p.credentials.Now()) != wire.ReasonNone:
		f.State, f.Why = Down, p.invalid(g)
	case err != nil:
		f.State, f.Why = Down, err.Error()
	case !reached:
		f.State, f.Why = Down, how
	default:
		f.State, f.Why = Up, "may be dialled; "+how
	}
	return f
}

// invalid says why a grant does not hold now.
func (p *Portal) invalid(g grant.Grant) string {
	now := p.credentials.Now()
	switch {
	case now.Before(g.From):
		return fmt.Sprintf("the grant begins at %s by the server's clock, and the clock here says %s", stamp(g.From), stamp(now))
	case !g.End.IsZero() && !now.Before(g.End):
		return "the policy's until has passed at " + stamp(g.End)
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
			return true, fmt.Sprintf("tunnel to %s over relay %s", peer, s.Relay)
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

// waiting says that a tunnel has no way to its peer, and for how long.
func waiting(s peers.Status) string {
	return fmt.Sprintf("the tunnel to %s has been waiting for a way back for %v; %d connections wait with it",
		s.Peer, time.Since(s.Waiting).Truncate(time.Second), s.Streams+s.Flows)
}
