package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/command"
)

func status() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the connection to the server, the forwards and the tunnels",
		Long: `Show the connection to the server, the forwards and the tunnels.

A forward is up only if this portal's part of it works and the other portal can
be reached now. What is missing stands below the table; with --wide the last column
says how it is known, too, and each tunnel what takes which of its carriers and why, and
where direct paths are looked for.

A tunnel that has lost every carrier waits for a way back, and its connections
with it, as long as "linger" in the configuration says.

The path of a carrier of a tunnel is one of:
  relay-packet  one TCP connection between the portals, whose packets the relay forwards
  relay         two TCP connections to a port of the session, which the relay joins
  relay-shared  the same, by a port that all sessions at the relay share
  relay-tls     the same inside TLS, for networks that pass nothing else
  relay-udp     QUIC over UDP, whose packets the relay forwards
  direct-udp    QUIC from portal to portal, past any relay
  direct-tcp    one TCP connection from portal to portal`,
		Example: "  netport-portal status\n  netport-portal status --watch --wide\n  netport-portal status --json --config ./config.toml",
		Args:    command.Args(),
	}
	var view command.View
	view.Flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return command.Show(c, view, func(ctx context.Context) (daemon.Status, error) {
			return call[daemon.Status](ctx, c, daemon.CallStatus, nil)
		}, func(p *command.Page, s daemon.Status) error { return printStatus(p, s, time.Now()) })
	}
	return c
}

func printStatus(w *command.Page, s daemon.Status, now time.Time) error {
	say := func(label, format string, args ...any) {
		w.Line(fmt.Sprintf("%-8s ", label), fmt.Sprintf(format, args...))
	}
	say("portal", "%s of %s, running for %s, certificate until %s", s.Portal, s.Domain, since(now, s.Started), s.Certificate.Format(time.DateOnly))
	say("key", "%x", s.Identity.Key[:])
	if s.Server.Connected {
		say("server", "%s at %s, connected for %s, policy version %d", s.Server.Name, s.Server.Place(), since(now, s.Server.Since), s.Server.Policy)
		if s.Server.Proxy != "" {
			say("proxy", "%s, through which the server is reached", s.Server.Proxy)
		}
	} else {
		say("server", "not connected for %s; trying %s", since(now, s.Server.Since), s.Server.Servers)
		if s.Server.Failed != "" {
			say("why", "%s", s.Server.Failed)
		}
	}
	if s.Server.Contest != "" {
		say("warning", "%s ago the server said: %s", since(now, s.Server.Contested), s.Server.Contest)
	}
	if s.Unreachable+s.Oversized > 0 {
		say("UDP", "%d datagrams found no one listening at their target, %d were too large for the way there", s.Unreachable, s.Oversized)
	}
	if text := s.Reload.Text(); text != "" {
		say("config", "%s", text)
	}
	if text := s.Router.Text(); text != "" {
		say("router", "%s", text)
	}
	for _, line := range s.Identity.Lines() {
		say("identity", "%s", line)
	}
	if s.Limited > 0 {
		say("limits", "%d datagrams were above the limits of their grants", s.Limited)
	}
	if len(s.Refusals) > 0 {
		r := s.Refusals[0]
		say("refused", "%d grants (see --json); the last at %s: %s: %s", len(s.Refusals), r.At.Format(time.RFC3339), r.Forward, r.Text)
	}
	fmt.Fprintln(w)
	if len(s.Forwards) == 0 {
		fmt.Fprintln(w, "No forward is granted to this portal.")
	} else {
		rows := make([][]string, 0, len(s.Forwards))
		for _, f := range s.Forwards {
			rows = append(rows, []string{f.Name, f.State, f.Role, f.Listen, f.Peer, f.Target, f.Why})
		}
		if err := w.Table(command.Columns{"FORWARD", "STATE", "ROLE", "LISTEN", "PEER", "TARGET", "+WHY"}, rows); err != nil {
			return err
		}
		for _, f := range s.Forwards {
			if f.State != daemon.Up && !w.Wide {
				w.Line("", f.Name+": "+f.Why)
			}
		}
	}
	if len(s.Tunnels) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	rows := make([][]string, 0, len(s.Tunnels))
	for _, t := range s.Tunnels {
		state, rtt := "opening", "-"
		switch {
		case !t.Waiting.IsZero():
			state = "waiting " + since(now, t.Waiting)
		case t.Up:
			state = "up " + since(now, t.Since)
		}
		if t.RTT > 0 {
			rtt = milliseconds(t.RTT)
		}
		rows = append(rows, []string{
			t.Peer, state, orDash(paths(t)), orDash(relays(t)), orDash(t.Address), rtt, fmt.Sprint(t.Streams),
			size(t.Sent), size(t.Received), fmt.Sprint(t.Flows), fmt.Sprint(t.Carriers), t.Session,
		})
	}
	if err := w.Table(command.Columns{"TUNNEL", "STATE", "PATH", "RELAY", "+ADDRESS", "RTT", "STREAMS", "+SENT", "+RECEIVED", "+FLOWS", "+CARRIERS", "+SESSION"}, rows); err != nil {
		return err
	}
	for _, t := range s.Tunnels {
		if w.Wide {
			for _, line := range carriers(t) {
				w.Line("", t.Peer+": "+line)
			}
		}
		for _, line := range direct(t, w.Wide) {
			w.Line("", t.Peer+": "+line)
		}
	}
	return nil
}

// carriers says of each carrier of a tunnel what takes it, and why streams do not.
func carriers(t peers.Status) (lines []string) {
	for _, c := range t.Ways {
		text := strings.TrimSpace(c.Path+" "+c.Relay) + ", " + c.Kind
		if c.RTT > 0 {
			text += ", " + milliseconds(c.RTT)
		}
		text += fmt.Sprintf(": streams %d", c.Streams)
		if c.Flows {
			text += ", and datagrams"
		}
		if c.Why != "" {
			text += "; streams take another: " + c.Why
		}
		lines = append(lines, text)
	}
	return lines
}

// direct says why a tunnel is on no direct path, and in full what was tried.
func direct(t peers.Status, full bool) (lines []string) {
	d := t.Direct
	if d == nil {
		return nil
	}
	if !slices.ContainsFunc(t.Ways, func(w peers.Way) bool { return w.Direct }) {
		text := fmt.Sprintf("no direct path: %s has told no address", t.Peer)
		if len(d.Peers) > 0 {
			text = fmt.Sprintf("no direct path: none of the addresses of %s has led to one (%d)", t.Peer, len(d.Peers))
		}
		lines = append(lines, text+"; NAT here: "+d.NAT)
	}
	if !full {
		return lines
	}
	for _, c := range d.Own {
		lines = append(lines, fmt.Sprintf("was told %s %s (%s)", c.Transport, c.Address, c.Origin))
	}
	for _, c := range d.Peers {
		text := fmt.Sprintf("may be at %s %s (%s): %s", c.Transport, c.Address, c.Origin, c.State)
		if c.RTT > 0 {
			text += ", " + milliseconds(c.RTT)
		}
		lines = append(lines, text)
	}
	return lines
}

// relays names the relays of a tunnel's carriers, that of the main one first.
func relays(t peers.Status) string {
	var list []string
	if t.Relay != "" {
		list = append(list, t.Relay)
	}
	for _, w := range t.Ways {
		if w.Relay != "" && !slices.Contains(list, w.Relay) {
			list = append(list, w.Relay)
		}
	}
	return strings.Join(list, "+")
}

// paths names the ways of a tunnel's carriers, each once, that of the main one
// first.
func paths(t peers.Status) string {
	var list []string
	for _, w := range t.Ways {
		if !slices.Contains(list, w.Path) {
			list = append(list, w.Path)
		}
	}
	if i := slices.Index(list, t.Path); i > 0 {
		list[0], list[i] = list[i], list[0]
	}
	return strings.Join(list, "+")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// since is how long ago t was, as a person would say it.
func since(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func milliseconds(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// size is a number of bytes in units of 1,000.
func size(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
