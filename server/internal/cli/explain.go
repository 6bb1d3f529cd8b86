package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/admin"
)

func newExplain() *cobra.Command {
	var where target
	var at, client string
	var view command.View
	c := &cobra.Command{
		Use:   "explain 'PORTAL ENDPOINT -> PORTAL ENDPOINT'",
		Short: "Say whether two ends are joined, and by which line of the policy",
		Long: `Say whether two ends are joined, and by which line of the policy in force.

Where they are not, it says what is missing, or which forward comes nearest. The exit
status is 0 for yes and 1 for no. What stands in the way of a forward that is granted,
netport-portal explain tells.`,
		Example: `  netport-server explain 'laptop-ann tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80'
  netport-server explain 'ann tcp://127.0.0.1:8080 -> plant tcp://10.0.0.5:80' --at 2026-11-23T10:00:00+01:00 --client 192.168.7.9`,
		Args: command.Args("PAIR"),
		RunE: func(c *cobra.Command, args []string) error {
			r := admin.ExplainRequest{Pair: args[0]}
			var err error
			if at != "" {
				if r.At, err = time.Parse(time.RFC3339, at); err != nil {
					return command.Usagef("--at %q: write a time with a zone, as in 2026-11-23T10:00:00+01:00", at)
				}
			}
			if client != "" {
				if r.Client, err = netip.ParseAddr(client); err != nil {
					return command.Usagef("--client %q is no IP address", client)
				}
			}
			var e admin.Explained
			err = command.Show(c, view, func(context.Context) (admin.Explained, error) {
				err := where.askState(c, admin.CommandExplain, r, &e)
				return e, err
			}, printExplained)
			if err == nil && !e.Allowed {
				return command.ErrShown
			}
			return err
		},
	}
	where.flags(c)
	view.OnceFlags(c)
	c.Flags().StringVar(&at, "at", "", "as of this `TIME`, not of now")
	c.Flags().StringVar(&client, "client", "", "for a client with this `ADDRESS`, not for any")
	return c
}

func printExplained(w *command.Page, e admin.Explained) error {
	answer := "yes"
	if !e.Allowed {
		answer = "no, " + e.ReasonText
	}
	rows := [][2]string{{"answer", answer}, {"because", e.Why}}
	if e.Forward != "" {
		rows = append(rows, [2]string{"forward", e.Forward + ", " + e.Place + ", policy version " + fmt.Sprint(e.Version)})
	}
	if len(e.Says) > 0 {
		rows = append(rows, [2]string{"terms", strings.Join(e.Says, "; ")})
	}
	if !e.Next.IsZero() {
		rows = append(rows, [2]string{"may change", "at " + e.Next.Local().Format(time.DateTime+" MST")})
	}
	for _, r := range rows {
		w.Line(fmt.Sprintf("%-11s ", r[0]), r[1])
	}
	return nil
}
