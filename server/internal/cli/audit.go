package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/config"
)

func newAudit() *cobra.Command {
	var file string
	var asJSON bool
	var count int
	var since time.Duration
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Show the last decisions: who asked for what, and the answer",
		Example: "  netport-server audit --last 100 --since 24h",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if count < 1 {
				return command.Usagef("--last is 1 or more")
			}
			if since < 0 {
				return command.Usagef("--since is a time that has passed, as in 24h")
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-since)
			}
			list, err := audit.Tail(cfg.State, count, from)
			if err != nil {
				return err
			}
			if asJSON {
				return command.JSON(c.OutOrStdout(), list)
			}
			var rows [][]string
			for _, r := range list {
				rows = append(rows, []string{r.Time.Format(time.RFC3339), r.Event, r.Answer, dash(r.Portal), dash(r.Peer), dash(r.Forward), dash(r.Relay), dash(detail(r))})
			}
			return command.Table(c.OutOrStdout(), []string{"TIME", "EVENT", "ANSWER", "PORTAL", "PEER", "FORWARD", "RELAY", "DETAIL"}, rows)
		},
	}
	configFlag(c, &file)
	jsonFlag(c, &asJSON)
	c.Flags().IntVarP(&count, "last", "n", 20, "how many")
	c.Flags().DurationVar(&since, "since", 0, "only those not older than this, as in 24h")
	return c
}

func detail(r audit.Record) string {
	switch {
	case r.Count > 0:
		return strconv.FormatUint(r.Count, 10) + " records"
	case r.Event == "session" && r.Answer == audit.Ended:
		return fmt.Sprintf("%s, %d bytes forth, %d back", r.Reason, r.Forth, r.Back)
	case r.Reason != "":
		return r.Reason
	}
	return r.Detail
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
