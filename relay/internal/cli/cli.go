// Package cli is the command line of netport-relay.
package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/local"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/daemon"
)

// New returns the root command.
func New() *cobra.Command {
	root := command.Root("netport-relay", "Carry the bytes of portals that cannot reach each other, without being able to read them")
	root.AddCommand(newRun(), newStatus())
	return root
}

// configFlag adds --config to a command.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", config.DefaultFile, "the relay's configuration `FILE`")
}

func newRun() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the relay until SIGINT or SIGTERM",
		Long: `Run the relay until SIGINT or SIGTERM. Then its sessions end and the server is
told; a second signal ends it at once.`,
		Example: "  netport-relay run --config /etc/netport/relay/config.toml",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			log, end, err := command.Daemon(c.ErrOrStderr(), cfg.LogLevel)
			if err != nil {
				return err
			}
			defer end()
			d, err := daemon.New(cfg, log)
			if err != nil {
				return err
			}
			return d.Run(c.Context())
		},
	}
	configFlag(c, &file)
	return c
}

func newStatus() *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the running relay and its sessions",
		Example: `  netport-relay status
  netport-relay status --json --config /etc/netport/relay/config.toml`,
		Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			var s daemon.Status
			if err := local.Call(c.Context(), cfg.Socket, "status", nil, &s); err != nil {
				return err
			}
			if asJSON {
				return command.JSON(c.OutOrStdout(), s)
			}
			return printStatus(c, s)
		},
	}
	configFlag(c, &file)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printStatus(c *cobra.Command, s daemon.Status) error {
	w := c.OutOrStdout()
	server := "not connected"
	switch {
	case s.Connected:
		server = "connected to " + s.Server
	case s.Server != "":
		server += ", last to " + s.Server
	}
	fmt.Fprintf(w, "relay     %s of %s, version %s, up %v\n", s.Name, s.Domain, s.Version, time.Since(s.Started).Round(time.Second))
	fmt.Fprintf(w, "server    %s\n", command.Clean(server))
	fmt.Fprintf(w, "sessions  %d of %d, %d bytes carried since the start\n", len(s.Sessions), s.Capacity, s.Bytes)
	fmt.Fprintf(w, "tcp       %s: %d pairs, %d legs waiting, %d connections unproven\n", s.TCP, s.Pairs, s.Waiting, s.Unproven)
	fmt.Fprintf(w, "udp       %s\n", s.UDP)
	var drops []string
	for _, why := range slices.Sorted(maps.Keys(s.Drops)) {
		drops = append(drops, fmt.Sprintf("%s %d", why, s.Drops[why]))
	}
	if len(drops) > 0 {
		fmt.Fprintf(w, "dropped   %s\n", strings.Join(drops, ", "))
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
		rows[i] = []string{
			v.ID.String(), v.Opener, v.Peer, port, time.Since(v.Opened).Round(time.Second).String(),
			fmt.Sprint(v.Spliced), fmt.Sprint(v.Bound), fmt.Sprint(v.Forth), fmt.Sprint(v.Back),
		}
	}
	return command.Table(w, []string{"SESSION", "OPENER", "PEER", "PORT", "AGE", "TCP", "UDP", "FORTH", "BACK"}, rows)
}
