package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command"
)

func explain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain FORWARD",
		Short: "Follow a forward from hop to hop and say where it fails",
		Long: `Follow a forward from its listener to its target, as far as it goes, and say on
which machine it fails and what to do there. The target is dialled once. The
exit status is 1 if the forward does not work.`,
		Example: "  netport-portal explain plc-web",
		Args:    command.Args("FORWARD"),
	}
	var view command.View
	view.OnceFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var list []daemon.Explanation
		err := command.Show(c, view, func(ctx context.Context) (_ []daemon.Explanation, err error) {
			list, err = call[[]daemon.Explanation](ctx, c, daemon.CallExplain, daemon.ExplainArgs{Forward: args[0]})
			return list, err
		}, printExplanations)
		if err != nil {
			return err
		}
		for _, e := range list {
			if !e.Works {
				return command.ErrShown
			}
		}
		return nil
	}
	return c
}

func printExplanations(w *command.Page, list []daemon.Explanation) error {
	for i, e := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		forward := e.Forward
		if e.Entry != "" {
			forward += fmt.Sprintf(": %s %s -> %s %s", e.Entry, e.Listen, e.Exit, e.Target)
		}
		w.Line("", forward)
		for _, s := range e.Steps {
			w.Line(fmt.Sprintf("  %-6s  %-13s ", s.State, s.What), s.Text)
		}
		w.Line("", e.Conclusion)
	}
	return nil
}
