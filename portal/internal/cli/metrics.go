package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command"
)

func metrics() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print what the running portal has counted, as Prometheus reads it",
		Long: `Print what the running portal has counted, as Prometheus reads it: the text format
0.0.4. With "metrics_file" in the configuration the portal writes the same to a file
every 15 seconds, for the textfile collector of a node exporter.`,
		Example: "  netport-portal metrics | grep bytes_total",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := call[string](c.Context(), c, daemon.CallMetrics, nil)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
}
