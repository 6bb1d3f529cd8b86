package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/policy"
)

func newAllow() *cobra.Command {
	var at target
	var end string
	var list bool
	var view command.View
	var r admin.AllowRequest
	c := &cobra.Command{
		Use:   "allow FORWARD --for TIME --by NAME",
		Short: "Allow a forward on request for a time",
		Long: `Allow a forward on request for a time: one that has on_request in the policy.

It ends by itself, at both portals, also while they have no server. To allow it again
sets a new end. What was allowed, by whom and until when, is in the audit log.

In strict mode it opens when it was signed: by "policy sign --allow FORWARD" where the
policy key is. Its time runs from now on.`,
		Example: `  netport-server allow plc-web --for 2h --by ann
  netport-server allow plc-web --for 30m --by ann --only laptop-bo
  netport-server allow --list
  netport-server allow --end plc-web --by ann`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case list && (len(args) > 0 || end != "" || r.For != "" || r.Only != "" || r.By != ""):
				return command.Usagef("--list stands alone: it shows all that is allowed on request")
			case list:
				return command.Show(c, view, func(context.Context) (list []admin.AllowedOpening, err error) {
					return list, at.askState(c, admin.CommandAllowed, struct{}{}, &list)
				}, printAllowed)
			case view.Watches():
				return command.Usagef("--watch is for --list")
			case end != "" && (len(args) > 0 || r.For != "" || r.Only != ""):
				return command.Usagef("--end FORWARD takes --by NAME only: it ends all that was allowed of the forward")
			case end != "":
				r.Forward, r.End = end, true
			default:
				if err := command.Args("FORWARD")(c, args); err != nil {
					return err
				}
				r.Forward = args[0]
				if r.For == "" {
					return command.Usagef("say for how long, as in --for 2h")
				}
			}
			if r.By == "" && !at.isRemote() {
				return command.Usagef("say on whose word: --by NAME")
			}
			return allow(c, at, view, r)
		},
	}
	at.flags(c)
	view.Flags(c)
	c.Flags().StringVar(&r.For, "for", "", "for how `long`, as in 30m, 2h or 1d")
	c.Flags().StringVar(&r.By, "by", "", "the `NAME` of who says so, for the audit log; of an admin without it: his own")
	c.Flags().StringVar(&r.Only, "only", "", "for this one `PORTAL`, not for all that the forward is from")
	c.Flags().StringVar(&end, "end", "", "end what was allowed of this `FORWARD`")
	c.Flags().BoolVar(&list, "list", false, "show all that is allowed on request")
	return c
}

func allow(c *cobra.Command, at target, view command.View, r admin.AllowRequest) error {
	var result admin.AllowResult
	if err := at.askState(c, admin.CommandAllow, r, &result); err != nil {
		return err
	}
	if view.JSON() {
		return command.JSON(c.OutOrStdout(), result)
	}
	if r.End {
		fmt.Fprintf(c.OutOrStdout(), "%s is ended: %s removed\n", r.Forward, command.Count(result.Removed, "grant"))
		return nil
	}
	o := result.Openings[0]
	fmt.Fprintf(c.OutOrStdout(), "%s is allowed for %s until %s\n", o.Forward, whom(o), o.Until.Local().Format(time.DateTime+" MST"))
	if result.Waits {
		fmt.Fprintf(c.ErrOrStderr(), "It opens when it was signed: netport-server policy request, policy sign --allow %s where the policy key is, policy install\n", o.Key())
		return nil
	}
	if result.Added == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "warning: it comes to no new grant: are its portals enrolled, and is it not allowed so long already?")
	}
	return nil
}

func whom(o policy.Opening) string {
	if o.Only == "" {
		return "all its portals"
	}
	return o.Only
}

func printAllowed(w *command.Page, list []admin.AllowedOpening) error {
	var rows [][]string
	for _, o := range list {
		state := "open"
		if o.Waits {
			state = "not signed"
		}
		rows = append(rows, []string{o.Forward, dash(o.Only), state, since(o.Since), since(o.Until), o.By})
	}
	return w.Table(command.Columns{"FORWARD", "ONLY", "STATE", "+SINCE", "UNTIL", "BY"}, rows)
}
