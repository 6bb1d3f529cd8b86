package cli

import (
	"fmt"
	"io"

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
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		list, err := call[[]daemon.Explanation](c.Context(), c, daemon.CallExplain, daemon.ExplainArgs{Forward: args[0]})
		if err != nil {
			return err
		}
		if *asJSON {
			err = command.JSON(c.OutOrStdout(), list)
		} else {
			err = printExplanations(c.OutOrStdout(), list)
		}
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

func printExplanations(w io.Writer, list []daemon.Explanation) error {
	for i, e := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s", command.Clean(e.Forward))
		if e.Entry != "" {
			fmt.Fprintf(w, ": %s %s -> %s %s", e.Entry, e.Listen, e.Exit, e.Target)
		}
		fmt.Fprintln(w)
		for _, s := range e.Steps {
			fmt.Fprintf(w, "  %-6s  %-13s %s\n", s.State, s.What, command.Clean(s.Text))
		}
		fmt.Fprintln(w, command.Clean(e.Conclusion))
	}
	return nil
}
