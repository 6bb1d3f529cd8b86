package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/daemon"
	"github.com/netport/netport/server/internal/hub"
)

// newView makes a command that asks the running server for a T and prints it.
func newView[T any](name, short, request string, print func(*command.Page, T) error) *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: "  netport-server " + name + "\n  netport-server " + name + " --watch --wide\n  netport-server " + name + " --json",
		Args:    command.Args(),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return command.Show(c, view, func(context.Context) (v T, err error) {
			return v, at.askDaemon(c, request, struct{}{}, &v)
		}, print)
	}
	at.flags(c)
	view.Flags(c)
	return c
}

func newStatus() *cobra.Command {
	return newView("status", "Show the running server in short", daemon.CommandStatus, func(w *command.Page, s daemon.Status) error {
		say := func(label, format string, args ...any) {
			w.Line(fmt.Sprintf("%-12s ", label), fmt.Sprintf(format, args...))
		}
		say("server", "%s, domain %s, up for %s", s.Version, s.Domain, time.Since(s.Since).Truncate(time.Second))
		say("address", "%s, listening on %s", s.Address, strings.Join(s.Listen, " "))
		if s.Policy > 0 {
			say("policy", "version %d, %s, %s of %s", s.Policy, command.Count(s.Grants, "grant"), s.File, s.Applied.Format(time.RFC3339))
		} else {
			say("policy", "none was applied yet: everything is denied")
		}
		say("portals", "%d of %d connected", s.Online, s.Portals)
		say("relays", "%d of %d ready", s.Usable, s.Relays)
		say("sessions", "%d", s.Sessions)
		say("certificate", "until %s", ends(s.Expires, time.Now()))
		if text := s.Reload.Text(); text != "" {
			say("config", "%s", text)
		}
		if s.Ending > 0 {
			say("warning", "%d certificates of portals and relays end soon or have ended: %s", s.Ending, strings.Join(s.EndingNames, ", "))
		}
		if len(s.Soon) > 0 {
			say("warning", "soon to end: %s", strings.Join(s.Soon, ", "))
		}
		for _, k := range s.Contested {
			say("warning", "two machines use the identity of %s %s, at %s and %s: find the copy, or revoke it and invite it anew", k.Role, k.Name, k.First, k.Second)
		}
		if s.Lost > 0 {
			say("warning", "this state is an old one: portals or relays hold %s that it lacks; revoke the same again", command.Count(int(s.Lost), "revocation"))
		}
		if s.Waiting > 0 {
			say("waiting", "%s for approval: netport-server enrolments", command.Count(s.Waiting, "key"))
		}
		if s.Pending > 0 {
			say("certificates", "%d wait for the CA key, the first since %s: netport-server ca pending", s.Pending, s.PendingSince.Local().Format(time.DateTime))
		}
		if s.Strict {
			say("signatures", "made elsewhere (strict mode): %s", unsigned(s))
		}
		if s.Damage != "" {
			say("audit", "it was found damaged at the start, at %s: see \"netport-server audit verify\"", s.Damage)
		}
		if s.Missing > 0 {
			say("audit", "%d records are not written: see the log; is the disk full?", s.Missing)
		}
		return nil
	})
}

// unsigned says what waits for a signature.
func unsigned(s daemon.Status) string {
	var what []string
	if s.Unsigned > 0 {
		what = append(what, command.Count(s.Unsigned, "grant"))
	}
	if s.UnsignedAuthorities {
		what = append(what, "the authorities")
	}
	if n := len(s.UnsignedPortals); n > 0 {
		names := strings.Join(s.UnsignedPortals[:min(n, 5)], ", ")
		if n > 5 {
			names += ", ..."
		}
		what = append(what, "new keys of "+command.Count(n, "portal")+" ("+names+")")
	}
	if len(what) == 0 {
		return "nothing waits"
	}
	return "to be signed: " + strings.Join(what, ", ") + " (netport-server policy request)"
}

func newPortals() *cobra.Command {
	return newView("portals", "Show the enrolled portals", daemon.CommandPortals, func(w *command.Page, list []hub.PortalView) error {
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Name, stateOf(p), fromBoth(p.From, p.Contest), over(p.Over), since(p.Since), strconv.Itoa(p.Grants), p.Key.String(), ends(p.NotAfter, time.Now()), dash(p.Software)})
		}
		return w.Table(command.Columns{"PORTAL", "STATE", "FROM", "OVER", "+SINCE", "GRANTS", "+KEY", "EXPIRES", "+SOFTWARE"}, rows)
	})
}

func newRelays() *cobra.Command {
	return newView("relays", "Show the enrolled relays", daemon.CommandRelays, func(w *command.Page, list []hub.RelayView) error {
		var rows [][]string
		for _, r := range list {
			now, ports, sessions, rate, trip, up := state(r.Online), "-", "-", "-", "-", time.Time{}
			if s := r.State; s != nil {
				up = s.Since
				if s.Draining {
					now = "draining"
				}
				if s.Measured+s.Silent > 0 {
					trip = fmt.Sprintf("%s, %d of %d portals", tripText(s.Median), s.Measured, s.Measured+s.Silent)
				}
				if s.Ready {
					ports = fmt.Sprintf("%d-%d", s.First, s.Last)
					sessions = fmt.Sprintf("%d of %d", s.Sessions, s.Capacity)
					rate = fmt.Sprintf("%.1f Mbit/s", float64(s.Rate)*8/1e6)
				}
			}
			if r.Contest != nil {
				now = "TWO MACHINES: " + fromBoth(r.From, r.Contest)
			}
			rows = append(rows, []string{r.Name, now, strings.Join(r.Addresses, " "), over(r.Over), ports, since(up), sessions, rate, trip, ends(r.NotAfter, time.Now())})
		}
		return w.Table(command.Columns{"RELAY", "STATE", "ADDRESSES", "+OVER", "+PORTS", "+SINCE", "SESSIONS", "RATE", "+ROUND TRIP", "EXPIRES"}, rows)
	})
}

func newSessions() *cobra.Command {
	return newView("sessions", "Show the sessions: which portals meet where", daemon.CommandSessions, func(w *command.Page, list []broker.SessionView) error {
		var rows [][]string
		for _, s := range list {
			chosen := tripText(s.RoundTrips[0]) + " + " + tripText(s.RoundTrips[1])
			if s.Pinned {
				chosen += ", pinned"
			}
			rows = append(rows, []string{s.ID.String(), s.Opener, s.Peer, dash(s.Forward), s.Relay, chosen, s.State, since(s.Since)})
		}
		return w.Table(command.Columns{"SESSION", "OPENER", "PEER", "FORWARD", "RELAY", "+ROUND TRIPS", "STATE", "+SINCE"}, rows)
	})
}

// ends shows when a certificate ends, to the minute if that is soon.
func ends(at, now time.Time) string {
	switch left := at.Sub(now); {
	case left < 0:
		return "ended " + at.Local().Format(time.DateTime)
	case left < 48*time.Hour:
		return at.Local().Format(time.DateTime)
	}
	return at.Local().Format(time.DateOnly)
}

func state(online bool) string {
	if online {
		return "connected"
	}
	return "away"
}

// tripText shows a round trip, and that it is not known.
func tripText(t broker.Milliseconds) string {
	if t == 0 {
		return "?"
	}
	return fmt.Sprintf("%.1f ms", float64(t))
}

func stateOf(p hub.PortalView) string {
	if p.Contest != nil {
		return "TWO MACHINES"
	}
	return state(p.Online)
}

// fromBoth names both addresses of an identity that two machines use.
func fromBoth(a netip.AddrPort, k *hub.Contest) string {
	if k == nil {
		return from(a)
	}
	return fmt.Sprintf("%s and %s", k.First, k.Second)
}

func from(a netip.AddrPort) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func over(o hub.Over) string {
	if o == (hub.Over{}) {
		return "-"
	}
	return o.String()
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
