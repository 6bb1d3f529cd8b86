package cli

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/daemon"
)

func newRun(secure func(keep privilege.Set) error) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the server",
		Long: `Run the server until SIGTERM or SIGINT; a second one ends it at once.

It starts with the policy last applied, or with the policy file of its
configuration if none was applied yet; policies are applied with "netport-server
policy apply".

It listens on the TCP ports of "listen", and over UDP (QUIC) on those of "listen_udp", which are
the same unless the configuration says otherwise: for who is in a network that shuts TCP.

SIGHUP has it read its configuration anew: "hand_over", "certificate_life",
"renew_after_expiry", "sessions_per_portal" and the log's level and format hold for what
begins from then on. What else has changed needs a restart, and is named in the log and in "status".

--check reads the configuration, the keys and certificates, a copy of the state, and the
policy file, whose tests it runs, and says what is wrong with them, a line each, or "ok".
It takes no lock, changes nothing and leaves alone what runs.

` + config.Help(),
		Example: "  netport-server run --config /etc/netport/server/config.toml\n  netport-server run --check",
		Args:    command.Args(),
	}
	configFlag(c, &file)
	command.Serve(c, command.Service[*config.Config]{
		Load:  func() (*config.Config, error) { return config.Load(file) },
		Log:   func(cfg *config.Config) command.Log { return cfg.Log },
		Check: daemon.Check,
		Live:  config.LiveKeys,
		Run: func(ctx context.Context, cfg *config.Config, log *slog.Logger, r *reload.Reloader[*config.Config]) error {
			if len(cfg.CACommand) == 0 { // which may need what this program does not
				if err := secure(privilege.Listen); err != nil {
					log.Warn("capabilities are not given back", "error", err)
				}
			}
			return daemon.Run(ctx, cfg, log, r)
		},
	})
	onServerOnly(c, "a server runs on its own machine; see \"systemctl\" there")
	return c
}
