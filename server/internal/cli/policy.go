package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/policy"
)

func newPolicy() *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:   "policy",
		Short: "Check, test and apply the policy; show the one in force",
		Long: `Check, test and apply the policy; show the one in force.

In strict mode ("init --operator") the policy key and the policy are on a machine of
the operator's, and the server puts in force only what was signed there:

  netport-server policy request > request              on the server
  netport-server policy sign --key policy.key --policy policy.toml \
    --known known.toml < request > signed              there
  netport-server policy install < signed               on the server`,
		Example: "  netport-server policy apply policy.toml",
	})
	c.AddCommand(
		newPolicyStep(admin.PolicyCheck, "Check a policy file", "  netport-server policy check policy.toml"),
		newPolicyStep(admin.PolicyTest, "Check a policy file and run its tests", "  netport-server policy test policy.toml"),
		newPolicyStep(admin.PolicyApply, "Check a policy file, run its tests and put it in force", "  netport-server policy apply policy.toml"),
		newPolicyDiff(), newPolicyShow(), newPolicyRequest(), newPolicySign(), newPolicyInstall(),
	)
	return c
}

func newPolicyStep(step, short, example string) *cobra.Command {
	var at target
	var asJSON, anew bool
	c := &cobra.Command{
		Use:     step + " FILE",
		Short:   short,
		Example: example,
		Args:    command.Args("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := policy.ReadFile(args[0])
			if err != nil {
				return err
			}
			r := admin.PolicyRequest{Step: step, File: args[0], Source: string(b), Anew: anew}
			result, err := askPolicy(c, at, r)
			if err != nil {
				return err
			}
			if asJSON {
				if err := command.JSON(c.OutOrStdout(), result); err != nil {
					return err
				}
			} else {
				printPolicy(c, r, result)
			}
			if len(result.Failed) > 0 {
				return command.ErrShown
			}
			return nil
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	if step == admin.PolicyApply {
		anewFlag(c, &anew)
	}
	return c
}

// anewFlag is for what puts a policy in force.
func anewFlag(c *cobra.Command, anew *bool) {
	c.Flags().BoolVar(anew, "anew", false, "take every permission newly signed, also those that say what one in force says: for portals that say one was taken back, by an old state or a stolen server")
}

// askPolicy has the policy judged where the names are known. To check a file, a
// machine without a server will do.
func askPolicy(c *cobra.Command, at target, r admin.PolicyRequest) (admin.PolicyResult, error) {
	_, err := os.Stat(at.config)
	if errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("config") && !at.isRemote() && r.Step != admin.PolicyApply {
		_, result, err := admin.CheckPolicy(r, nil, time.Now())
		if err == nil {
			result.Warnings = append(result.Warnings, fmt.Sprintf("there is no %s here: names were not compared with the portals that are enrolled", at.config))
		}
		return result, err
	}
	var result admin.PolicyResult
	err = at.askState(c, admin.CommandPolicy, r, &result)
	return result, err
}

func printPolicy(c *cobra.Command, r admin.PolicyRequest, result admin.PolicyResult) {
	for _, w := range result.Warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", command.Clean(w))
	}
	for _, f := range result.Failed {
		fmt.Fprintln(c.ErrOrStderr(), f)
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "%s: %s, %s\n", r.File, command.Count(result.Forwards, "forward"), command.Count(result.Grants, "grant"))
	if r.Step != admin.PolicyCheck {
		fmt.Fprintf(out, "%d of %d tests passed\n", result.Tests-len(result.Failed), result.Tests)
	}
	switch {
	case result.Applied:
		fmt.Fprintln(out, inForce(result))
	case r.Step == admin.PolicyApply:
		fmt.Fprintln(c.ErrOrStderr(), "not applied: the policy before stays in force")
	}
}

func inForce(r admin.PolicyResult) string {
	return fmt.Sprintf("in force as version %d: %s added, %d removed, %d unchanged", r.Version, command.Count(r.Added, "grant"), r.Removed, r.Unchanged)
}

func newPolicyShow() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:     "show",
		Short:   "Show the policy in force",
		Example: "  netport-server policy show",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			return command.Show(c, view, func(context.Context) (s admin.Shown, err error) {
				return s, at.askState(c, admin.CommandShow, struct{}{}, &s)
			}, printShown)
		},
	}
	at.flags(c)
	view.Flags(c)
	return c
}

func printShown(w *command.Page, s admin.Shown) error {
	if s.Version == 0 {
		w.Line("", "No policy was applied yet: everything is denied.")
		return nil
	}
	w.Line("", fmt.Sprintf("Version %d (%s), %s, from %s of %s", s.Version, s.Cause, command.Count(s.Grants, "grant"), s.File, s.Time.Format(time.RFC3339)))
	fmt.Fprintln(w)
	var rows [][]string
	for _, f := range s.Forwards {
		rows = append(rows, forwardRow(f))
	}
	return w.Table(command.Columns{"FORWARD", "FROM", "LISTENS AT", "TO", "TERMS"}, rows)
}

func forwardRow(f admin.ShownForward) []string {
	from := f.From
	if len(f.Entries) != 1 || f.Entries[0] != f.From {
		from += " (" + strconv.Itoa(len(f.Entries)) + ")"
	}
	var to []string
	for _, t := range f.To {
		to = append(to, t.Exit+" "+t.Dial.String())
	}
	return []string{f.Name, from, f.Listen.String(), strings.Join(to, ", else "), dash(strings.Join(f.Says, "; "))}
}
