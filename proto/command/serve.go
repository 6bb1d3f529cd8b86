package command

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/reload"
)

// Service is what a role is that runs until it is stopped.
type Service[C reload.Config] struct {
	Load  func() (C, error) // reads the configuration
	Log   func(C) Log       // says how it wants the log
	Check func(C) []error   // says what is wrong with it and its files
	Live  []string          // keys that need no restart
	Run   func(context.Context, C, *slog.Logger, *reload.Reloader[C]) error
}

// Serve has a command run a service, which reads its configuration anew at each SIGHUP; with --check
// it only checks that.
func Serve[C reload.Config](c *cobra.Command, s Service[C]) {
	var check bool
	c.Flags().BoolVar(&check, "check", false, "only say what is wrong with the configuration and its files")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := s.Load()
		if err != nil {
			return err
		}
		if check {
			return checked(c, s.Check(cfg))
		}
		d, err := newDaemon(c.ErrOrStderr(), s.Log(cfg))
		if err != nil {
			return err
		}
		defer d.end()
		return s.Run(c.Context(), cfg, d.log, reload.New(cfg, s.Live, d.hangups, func() (C, error) {
			cfg, err := s.Load()
			if err == nil {
				d.setLog(s.Log(cfg))
			}
			return cfg, err
		}, d.log))
	}
}
