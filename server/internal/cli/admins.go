package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/join"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/remote"
)

// newJoin makes who works here an admin.
func newJoin() *cobra.Command {
	c := join.Command(identity.Admin, remote.DefaultFile, identity.KeyFiles{}, join.Admin)
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		flag := c.Flags().Lookup("config")
		file, err := remote.Expand(flag.Value.String())
		if err != nil {
			return err
		}
		return flag.Value.Set(file)
	}
	return c
}

func newAdmins() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:   "admins",
		Short: "Show the admins: operators who work from other machines",
		Long: `Show the admins: operators who work from other machines.

"invite admin NAME" makes a token, with which "netport-server join" makes the key and the
identity on the operator's machine. Every command works from there with --server HOST, or
with --admin FILE. What changes something is in the audit log with the name.`,
		Example: "  netport-server admins",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			return command.Show(c, view, func(context.Context) (list []registry.Admin, err error) {
				return list, at.askState(c, admin.CommandAdmins, struct{}{}, &list)
			}, printAdmins)
		},
	}
	at.flags(c)
	view.Flags(c)
	return c
}

func printAdmins(w *command.Page, list []registry.Admin) error {
	var rows [][]string
	for _, a := range list {
		scope := "all"
		if a.ReadOnly {
			scope = "read-only"
		}
		rows = append(rows, []string{a.Name, scope, a.Key.String(), since(a.Issued), ends(a.NotAfter, time.Now())})
	}
	return w.Table(command.Columns{"ADMIN", "MAY", "KEY", "+ISSUED", "EXPIRES"}, rows)
}
