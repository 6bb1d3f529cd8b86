package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/policy"
)

func newPolicyDiff() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what a policy file would open, close and change, for each portal",
		Long: `Show what a policy file would open, close and change, for each portal, if it were
applied now in place of the policy in force. Whether portals are enrolled makes no
difference, and what is granted on request counts as open.`,
		Example: "  netport-server policy diff policy.toml",
		Args:    command.Args("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := policy.ReadFile(args[0])
			if err != nil {
				return err
			}
			return command.Show(c, view, func(context.Context) (d admin.PolicyDiff, err error) {
				return d, at.askState(c, admin.CommandDiff, admin.PolicyRequest{File: args[0], Source: string(b)}, &d)
			}, func(w *command.Page, d admin.PolicyDiff) error {
				for _, text := range d.Warnings {
					fmt.Fprintln(c.ErrOrStderr(), "warning:", command.Clean(text))
				}
				printDiff(w, d)
				return nil
			})
		},
	}
	at.flags(c)
	view.OnceFlags(c)
	return c
}

// printDiff shows each change at its entry and at its exit.
func printDiff(w *command.Page, d admin.PolicyDiff) {
	lines := make(map[string][]string)
	count := make(map[policy.ChangeKind]int)
	for _, c := range d.Changes {
		count[c.Kind] += c.Listen.Ports
		mark := map[policy.ChangeKind]string{policy.Opens: "+", policy.Closes: "-", policy.Changes: "~"}[c.Kind]
		lines[c.Entry] = append(lines[c.Entry], fmt.Sprintf("%s listens at %s for %s %s%s", mark, c.Listen, c.Exit, c.Target, about(c)))
		lines[c.Exit] = append(lines[c.Exit], fmt.Sprintf("%s dials %s for %s %s%s", mark, c.Target, c.Entry, c.Listen, about(c)))
	}
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		w.Line("", name)
		for _, line := range lines[name] {
			w.Line("  ", line)
		}
	}
	against := "nothing, for no policy was applied yet"
	if d.Version > 0 {
		against = fmt.Sprintf("version %d", d.Version)
	}
	w.Line("", fmt.Sprintf("%s against %s: %d open, %d close, %d change", d.File, against, count[policy.Opens], count[policy.Closes], count[policy.Changes]))
}

// about names the forward of a change, and what is said of it.
func about(c policy.Change) string {
	said := func(words []string) string {
		if len(words) == 0 {
			return "no terms"
		}
		return strings.Join(words, "; ")
	}
	switch {
	case c.Kind == policy.Changes:
		return fmt.Sprintf(" (%s): %s -> %s", c.Forward, said(c.Before), said(c.After))
	case len(c.After) > 0:
		return fmt.Sprintf(" (%s): %s", c.Forward, said(c.After))
	}
	return fmt.Sprintf(" (%s)", c.Forward)
}
