package cli

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/daemon"
)

func newRun() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the server",
		Long: `Run the server until SIGTERM or SIGINT; a second one ends it at once.

It starts with the policy last applied, or with the policy file of its
configuration if none was applied yet. SIGHUP changes nothing: policies are
applied with "netport-server policy apply".`,
		Example: "  netport-server run --config /etc/netport/server/config.toml",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			log, flush, err := command.Logger(c.ErrOrStderr(), cfg.LogLevel)
			if err != nil {
				return err
			}
			defer flush()
			defer outliveHangup(log)()
			return daemon.Run(c.Context(), cfg, log)
		},
	}
	configFlag(c, &file)
	return c
}

// outliveHangup logs SIGHUP and does nothing else about it. The function it
// returns ends that.
func outliveHangup(log *slog.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangup {
			log.Info("SIGHUP changes nothing: apply a policy with \"netport-server policy apply\"")
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}
