// Package cli is the command line of netport-portal. "run" is the daemon; the
// other commands ask a running one over its socket.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/proto/reload"
)

// Root returns the command line. secure is how a portal that runs gives back
// capabilities (privilege.Keep).
func Root(secure func(keep privilege.Set) error) *cobra.Command {
	root := command.Root("netport-portal", "Forward connections between two private networks")
	root.Long = `Forward connections between two private networks.

A portal runs on each side. No port has to be opened for it: portals dial out, and
meet at a relay, or directly where their networks let them. The server's policy says
where the one listens and what the other dials for it.`
	root.AddCommand(run(secure), status(), metrics(), ping(), explain(), doctorCommand(), connect())
	for _, c := range root.Commands() {
		c.Flags().String("config", config.DefaultFile, "the portal's configuration `FILE`")
	}
	root.AddCommand(joinCommand())
	root.AddCommand(services()...)
	return root
}

// load reads the file that --config names.
func load(c *cobra.Command) (config.Config, error) {
	name, err := c.Flags().GetString("config")
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(name)
}

// call asks the running daemon.
func call[T any](ctx context.Context, c *cobra.Command, name string, args any) (T, error) {
	var result T
	conf, err := load(c)
	if err != nil {
		return result, err
	}
	err = local.Call(ctx, conf.Socket, name, args, &result)
	return result, plain(err)
}

// plain leaves of a daemon's answer only what it said, which may quote another
// machine.
func plain(err error) error {
	var said *local.Error
	if errors.As(err, &said) {
		return errors.New(command.Clean(said.Text))
	}
	return err
}

func run(secure func(keep privilege.Set) error) *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the portal",
		Long: `Run the portal until SIGTERM or SIGINT. It then accepts nothing more, lets
connections finish for as long as "drain" in the configuration says, closes its
tunnels and removes its sockets; a second signal ends it at once.

SIGHUP has it read its configuration anew: the lists of [dial] and [listen], "linger",
"drain" and the log's level and format are taken at once. What else has changed needs a
restart, and is named in the log and in "status".

--check reads the configuration, the key, the certificates and the state, and says what is
wrong with them, a line each, or "ok". It takes no lock, changes nothing and leaves alone
what runs.

` + config.Help(),
		Example: "  netport-portal run\n  netport-portal run --config ./config.toml\n  netport-portal run --check",
		Args:    command.Args(),
	}
	command.Serve(c, command.Service[config.Config]{
		Load:  func() (config.Config, error) { return load(c) },
		Log:   func(conf config.Config) command.Log { return conf.Log },
		Check: daemon.Check,
		Live:  config.LiveKeys,
		Run: func(ctx context.Context, conf config.Config, log *slog.Logger, r *reload.Reloader[config.Config]) error {
			// None is needed. One that was given ports below 1024 listens there for
			// as long as it runs.
			if err := secure(privilege.Listen); err != nil {
				log.Warn("capabilities are not given back", "error", err)
			}
			p, err := daemon.New(conf, log)
			if err != nil {
				return fmt.Errorf("start portal: %w", err)
			}
			p.Follow(r)
			return p.Run(ctx)
		},
	})
	return c
}
