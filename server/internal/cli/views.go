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

// newView makes a command that asks the running server for a T and prints it. wide says
// that some columns stand in a wide table alone.
func newView[T any](name, short, request string, wide bool, print func(*command.Page, T) error) *cobra.Command {
	var at target
	var view command.View
	example := "  netport-server " + name + "\n  netport-server " + name + " --watch"
	if wide {
		example += " --wide"
	}
	c := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: example + "\n  netport-server " + name + " --json",
		Args:    command.Args(),
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return command.Show(c, view, func(context.Context) (v T, err error) {
			return v, at.askDaemon(c, request, struct{}{}, &v)
		}, print)
	}
	at.flags(c)
	view.Flags(c, wide)
	return c
}

func newStatus() *cobra.Command {
	return newView("status", "Show the running server in short", daemon.CommandStatus, false, func(w *command.Page, s daemon.Status) error {
		policy := "none was applied yet: everything is denied"
		if s.Policy > 0 {
			policy = fmt.Sprintf("version %d, %d grants, %s of %s", s.Policy, s.Grants, command.Clean(s.File), s.Applied.Format(time.RFC3339))
		}
		_, err := fmt.Fprintf(w, `server       %s, domain %s, up for %s
address      %s, listening on %s
policy       %s
portals      %d of %d connected
relays       %d of %d ready
sessions     %d
certificate  until %s
`, s.Version, s.Domain, time.Since(s.Since).Truncate(time.Second), s.Address, strings.Join(s.Listen, " "), policy,
			s.Online, s.Portals, s.Usable, s.Relays, s.Sessions, ends(s.Expires, time.Now()))
		if text := s.Reload.Text(); err == nil && text != "" {
			_, err = fmt.Fprintf(w, "config       %s\n", command.Clean(text))
		}
		if err == nil && s.Ending > 0 {
			_, err = fmt.Fprintf(w, "warning      %d certificates of portals and relays end soon or have ended: %s\n", s.Ending, strings.Join(s.EndingNames, ", "))
		}
		if err == nil && len(s.Soon) > 0 {
			_, err = fmt.Fprintf(w, "warning      soon to end: %s\n", strings.Join(s.Soon, ", "))
		}
		for _, k := range s.Contested {
			if err == nil {
				_, err = fmt.Fprintf(w, "warning      two machines use the identity of %s %s, at %s and %s: find the copy, or revoke it and invite it anew\n", k.Role, k.Name, k.First, k.Second)
			}
		}
		if err == nil && s.Waiting > 0 {
			_, err = fmt.Fprintf(w, "waiting      %d keys wait for approval: netport-server enrolments\n", s.Waiting)
		}
		if err == nil && s.Pending > 0 {
			_, err = fmt.Fprintf(w, "certificates %d wait for the CA key, the first since %s: netport-server ca pending\n", s.Pending, s.PendingSince.Local().Format(time.DateTime))
		}
		if err == nil && s.Strict {
			_, err = fmt.Fprintf(w, "signatures   made elsewhere (strict mode): %s\n", unsigned(s))
		}
		if err == nil && s.Missing > 0 {
			_, err = fmt.Fprintf(w, "audit        %d records are not written: see the log; is the disk full?\n", s.Missing)
		}
		return err
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
	return newView("portals", "Show the enrolled portals", daemon.CommandPortals, true, func(w *command.Page, list []hub.PortalView) error {
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.Name, stateOf(p), fromBoth(p.From, p.Contest), since(p.Since), strconv.Itoa(p.Grants), p.Key.String(), ends(p.NotAfter, time.Now()), dash(p.Software)})
		}
		return w.Table(command.Columns{"PORTAL", "STATE", "FROM", "+SINCE", "GRANTS", "+KEY", "EXPIRES", "+SOFTWARE"}, rows)
	})
}

func newRelays() *cobra.Command {
	return newView("relays", "Show the enrolled relays", daemon.CommandRelays, true, func(w *command.Page, list []hub.RelayView) error {
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
			rows = append(rows, []string{r.Name, now, strings.Join(r.Addresses, " "), ports, since(up), sessions, rate, trip, ends(r.NotAfter, time.Now())})
		}
		return w.Table(command.Columns{"RELAY", "STATE", "ADDRESSES", "+PORTS", "+SINCE", "SESSIONS", "RATE", "+ROUND TRIP", "EXPIRES"}, rows)
	})
}

func newSessions() *cobra.Command {
	return newView("sessions", "Show the sessions: which portals meet where", daemon.CommandSessions, true, func(w *command.Page, list []broker.SessionView) error {
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

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
