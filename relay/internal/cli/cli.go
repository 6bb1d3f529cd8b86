// Package cli is the command line of netport-relay.
package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/join"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/proto/reload"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/daemon"
)

// New returns the root command. secure is how a running relay gives back
// capabilities (privilege.Keep).
func New(secure func(keep privilege.Set) error) *cobra.Command {
	root := command.Root("netport-relay", "Carry the bytes of portals that cannot reach each other, without being able to read them")
	root.AddCommand(newRun(secure), newStatus(), newDrain(), newUnload(),
		join.Command(identity.Relay, config.DefaultFile, identity.KeyFiles{}, join.Relay))
	return root
}

// configFlag adds --config to a command.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", config.DefaultFile, "the relay's configuration `FILE`")
}

func newRun(secure func(keep privilege.Set) error) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the relay until SIGINT or SIGTERM",
		Long: `Run the relay until SIGINT or SIGTERM. Then the server has its sessions moved to
other relays, for as long as "drain" in the configuration says, and what is left
ends; a second signal ends it at once. Without a server, or another relay, it does
not wait.

Where the kernel forwards without the relay ("status" says so), its sessions stay
there instead and the next relay takes them over: that is for restarts and upgrades.
"drain" moves them away first, "unload" ends them.

SIGHUP has it read its configuration anew: "deny", "sessions_per_portal", the limits of
connections, "drain" and the log's level and format hold for what begins from then on.
What else has changed needs a restart, and is named in the log and in "status".

--check reads the configuration, the key, the certificates and the state, and says what is
wrong with them, a line each, or "ok". It takes no lock, changes nothing and leaves alone
what runs.

` + config.Help(),
		Example: "  netport-relay run --config /etc/netport/relay/config.toml\n  netport-relay run --check",
		Args:    command.Args(),
	}
	configFlag(c, &file)
	command.Serve(c, command.Service[config.Config]{
		Load:  func() (config.Config, error) { return config.Load(file) },
		Log:   func(cfg config.Config) command.Log { return cfg.Log },
		Check: daemon.Check,
		Live:  config.LiveKeys,
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger, r *reload.Reloader[config.Config]) error {
			relay := daemon.New(cfg, log, secure)
			relay.Follow(r)
			return relay.Run(ctx)
		},
	})
	return c
}

func newStatus() *cobra.Command {
	var file string
	var view command.View
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the running relay and its sessions",
		Example: `  netport-relay status
  netport-relay status --watch --wide
  netport-relay status --json --config /etc/netport/relay/config.toml`,
		Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return command.Show(c, view, func(ctx context.Context) (s daemon.Status, err error) {
				return s, local.Call(ctx, cfg.Socket, "status", nil, &s)
			}, printStatus)
		},
	}
	configFlag(c, &file)
	view.Flags(c)
	return c
}

func newDrain() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "drain",
		Short: "Have the running relay's sessions moved elsewhere, before it is taken away",
		Long: `Have the running relay's sessions moved to other relays, and end what nobody has
moved in the time that "drain" in the configuration gives. The relay runs on and
takes no session until it is started anew: it can be stopped, and nothing is lost.

A relay in user space does the same by itself when it is stopped. One whose sessions
stay in the kernel does not: drain it before it is taken away for good. A relay that
is stopped while it drains moves nothing more; what stays in the kernel then, the next
relay takes over.`,
		Example: "  netport-relay drain && systemctl stop netport-relay",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			var d daemon.Drained
			if err := local.Call(c.Context(), cfg.Socket, "drain", nil, &d); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d sessions moved away, %d ended\n", d.Moved, d.Left)
			return err
		},
	}
	configFlag(c, &file)
	return c
}

func newUnload() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "unload",
		Short: "Take a stopped relay's program and sessions out of the kernel",
		Long: `Take a stopped relay's program and sessions out of the kernel. What it still
forwards ends. It is not needed before a restart or an upgrade.`,
		Example: "  netport-relay unload --config /etc/netport/relay/config.toml",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return bpf.Unload(cfg.PinDir)
		},
	}
	configFlag(c, &file)
	return c
}

func printStatus(w *command.Page, s daemon.Status) error {
	server := "not connected"
	switch {
	case s.Connected:
		server = "connected to " + s.Server
	case s.Server != "":
		server += ", last to " + s.Server
	}
	say := func(label, format string, args ...any) {
		w.Line(fmt.Sprintf("%-9s ", label), fmt.Sprintf(format, args...))
	}
	say("relay", "%s of %s, version %s, up %v, certificate until %s", s.Name, s.Domain, s.Version, time.Since(s.Started).Round(time.Second), s.Certificate.Format(time.DateOnly))
	say("key", "%x", s.Identity.Key[:])
	say("server", "%s", server)
	if text := s.Reload.Text(); text != "" {
		say("config", "%s", text)
	}
	for _, line := range s.Identity.Lines() {
		say("identity", "%s", line)
	}
	draining := ""
	if s.Draining {
		draining = ", drains: it takes none any more"
	}
	say("sessions", "%d of %d, %d bytes carried since the start%s", len(s.Sessions), s.Capacity, s.Bytes, draining)
	if s.TicketKeys == 0 {
		say("tickets", "refused: no server has given this relay keys for them yet")
	} else {
		say("tickets", "%d sessions, %d TCP legs waiting", s.Tickets, s.TicketLegs)
	}
	say("mode", "%s", modeText(s))
	for _, i := range s.Interfaces {
		say("", "%s", because(i.Name+": "+i.Mode, i.Why))
	}
	if s.Mode != config.ModeUserSpace {
		say("kernel", "%d TCP connections, %d handshakes under way, %d UDP pairs", s.Flows, s.Handshakes, s.UDPShort)
	}
	say("user", "%d TCP connections, %d legs waiting, %d connections unproven", s.Pairs, s.Waiting, s.Unproven)
	for _, counted := range []struct {
		label string
		by    map[string]uint64
	}{{"refused", s.UDPLong}, {"dropped", s.Drops}, {"in kernel", s.KernelDrops}} {
		if len(counted.by) > 0 {
			say(counted.label, "%s", counts(counted.by))
		}
	}
	if len(s.Sessions) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	rows := make([][]string, len(s.Sessions))
	for i, v := range s.Sessions {
		port := "shared"
		if v.Port != 0 {
			port = fmt.Sprint(v.Port)
		}
		opener, peer := v.Opener, v.Peer
		if !v.Ticket.IsZero() {
			opener, peer = "ticket", "until "+v.Ticket.Format("Jan _2 15:04")
		}
		rows[i] = []string{
			v.ID.String(), opener, peer, port, time.Since(v.Opened).Round(time.Second).String(),
			fmt.Sprint(v.Packet), fmt.Sprint(v.Spliced), fmt.Sprint(v.Bound), fmt.Sprint(v.Forth), fmt.Sprint(v.Back),
		}
	}
	return w.Table(command.Columns{"SESSION", "OPENER", "PEER", "PORT", "AGE", "+KERNEL", "+TCP", "+UDP", "FORTH", "BACK"}, rows)
}

// modeText says what carries the packets, and whether that outlives the daemon.
func modeText(s daemon.Status) string {
	switch {
	case s.Mode == config.ModeUserSpace:
		return because(s.Mode, s.Why)
	case s.Pinned:
		return s.Mode + ", goes on while the relay restarts"
	}
	return s.Mode + ", ends with the relay: pin_dir cannot be used"
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + " (" + why + ")"
}

// counts lists what was counted, by why.
func counts(by map[string]uint64) string {
	var list []string
	for _, why := range slices.Sorted(maps.Keys(by)) {
		list = append(list, fmt.Sprintf("%s %d", why, by[why]))
	}
	return strings.Join(list, ", ")
}
