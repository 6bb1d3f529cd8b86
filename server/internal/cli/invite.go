package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/registry"
)

func newInvite() *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:   "invite",
		Short: "Invite a portal, a relay or an admin to join: print a one-time token",
		Long: `Invite a portal, a relay or an admin to join: print a one-time token.

Whoever has the token can join under its name, once, until it ends. It holds where
the server is and by which CA to know it, and a secret, of which the server keeps a
hash alone: it is printed this once. The device makes its own key and gets its
certificate; nothing secret has to be brought to it but the token.`,
		Example: "  netport-server invite portal laptop-ann | ssh ann@laptop netport-portal join --config portal.toml",
	})
	c.AddCommand(newInviteOf(identity.Portal), newInviteOf(identity.Relay), newInviteOf(identity.Admin))
	return c
}

func newInviteOf(role identity.Role) *cobra.Command {
	var at target
	var life string
	var asJSON bool
	r := admin.InviteRequest{Role: role}
	c := &cobra.Command{
		Use:   string(role) + " NAME",
		Short: "Invite " + article(role) + " " + string(role),
		Args:  command.Args("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			var err error
			if r.Life, err = conffile.ParseDuration(life); err != nil {
				return command.Usagef("--ttl: %w", err)
			}
			if r.Life < time.Minute || r.Life > enrol.MaxLife {
				return command.Usagef("--ttl is a minute to %s", conffile.FormatDuration(enrol.MaxLife))
			}
			if c.Flags().Changed("count") && r.Count < 1 {
				return command.Usagef("--count is 1 or more")
			}
			if role == identity.Relay && len(r.Addresses) == 0 {
				return command.Usagef("--address is missing; see \"%s --help\"", c.CommandPath())
			}
			for _, a := range r.Addresses {
				if err := registry.CheckAddress(a); err != nil {
					return command.Usagef("--address: %w", err)
				}
			}
			var list []admin.Invited
			if err := at.askState(c, admin.CommandInvite, r, &list); err != nil {
				return err
			}
			if asJSON {
				return command.JSON(c.OutOrStdout(), list)
			}
			return printInvited(c, r, list)
		},
	}
	switch role {
	case identity.Admin:
		c.Example = `  netport-server invite admin ann > ann.token
  netport-server invite admin bo --read-only`
		c.Flags().BoolVar(&r.ReadOnly, "read-only", false, "this admin may look at everything and change nothing")
	case identity.Portal:
		c.Example = `  netport-server invite portal laptop-ann --ttl 2h
  netport-server invite portal till-%03d --count 200 --ttl 7d > tokens.txt
  netport-server invite portal plc-7 --approve`
		c.Flags().IntVar(&r.Count, "count", 0, "how many: NAME is a pattern then, as in till-%03d, and each line is NAME and token")
		c.Flags().IntVar(&r.First, "first", 1, "with --count: the number of the first")
	default:
		c.Example = "  netport-server invite relay relay-1 --address 192.0.2.7,2001:db8::7"
		c.Flags().StringSliceVar(&r.Addresses, "address", nil, "where portals find the relay: IP addresses or DNS names")
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	c.Flags().StringVar(&life, "ttl", "1h", "how long the token is good for: \"1h\" to \"7d\"")
	c.Flags().BoolVar(&r.Approve, "approve", false, "joining waits until you approve the key that the device shows")
	c.Flags().BoolVar(&r.Replace, "replace", false, "the name may be enrolled; its old key is worth nothing once the new one has joined")
	return c
}

// printInvited prints one token alone, for a pipe, and many with their names.
func printInvited(c *cobra.Command, r admin.InviteRequest, list []admin.Invited) error {
	out := c.OutOrStdout()
	for _, in := range list {
		if r.Count == 0 {
			fmt.Fprintln(out, in.Token)
			continue
		}
		fmt.Fprintln(out, in.Name, in.Token)
	}
	ends := list[0].Ends.Local().Format(time.DateTime)
	if r.Role == identity.Admin {
		fmt.Fprintf(c.ErrOrStderr(), "Good once, until %s. Where %s works: netport-server join < token\n", ends, r.Name)
		return nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "Good once, until %s. On the device: netport-%s join --config FILE < token\n", ends, r.Role)
	return nil
}

func article(role identity.Role) string {
	if role == identity.Admin {
		return "an"
	}
	return "a"
}

func newEnrolments() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:     "enrolments",
		Short:   "Show the invitations that are open, and whose keys wait for approval",
		Example: "  netport-server enrolments\n  netport-server enrolments approve 3f9a0c1de2b4",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			return command.Show(c, view, func(context.Context) (list []enrol.Token, err error) {
				err = at.askState(c, admin.CommandEnrolments, struct{}{}, &list)
				for i := range list {
					list[i].Hash = nil
				}
				return list, err
			}, printEnrolments)
		},
	}
	at.flags(c)
	view.Flags(c)
	c.AddCommand(
		newDecision("approve", admin.CommandApprove, "Approve a key that waits: its device gets the certificate", "Approved: %s %s joins with the key %s.\n"),
		newDecision("reject", admin.CommandReject, "Reject a key that waits: its token is worth nothing any more", "Rejected: the token of %s %s is void (key %s).\n"),
	)
	return c
}

func printEnrolments(w *command.Page, list []enrol.Token) error {
	var rows [][]string
	for _, t := range list {
		row := []string{t.Name, string(t.Role), t.ID.String(), t.Ends.Local().Format(time.DateTime)}
		switch {
		case !t.Used.IsZero():
			rows = append(rows, append(row, "used", t.Used.String(), t.UsedFrom))
		case len(t.Waiting) == 0:
			rows = append(rows, append(row, "open", "", ""))
		}
		for _, waiting := range t.Waiting {
			rows = append(rows, append(row[:len(row):len(row)], "waits", keyText(waiting.Key), waiting.From))
		}
	}
	return w.Table(command.Columns{"NAME", "ROLE", "+TOKEN", "ENDS", "STATE", "KEY", "FROM"}, rows)
}

// keyText is all of a key's hash, for people who compare it.
func keyText(key identity.KeyHash) string {
	text, _ := key.MarshalText()
	return string(text)
}

func newDecision(name, request, short, done string) *cobra.Command {
	var at target
	c := &cobra.Command{
		Use:   name + " KEY",
		Short: short,
		Long: short + `.

KEY is the fingerprint that the device shows while it waits, or its first 8 digits or
more. Compare it: whoever else got hold of the token would wait with another one.`,
		Example: "  netport-server enrolments " + name + " 3f9a0c1de2b4",
		Args:    command.Args("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			var t enrol.Token
			if err := at.askState(c, request, admin.DecideRequest{Key: strings.TrimSpace(args[0])}, &t); err != nil {
				return err
			}
			key := args[0]
			if !t.Used.IsZero() {
				key = t.Used.String()
			}
			fmt.Fprintf(c.OutOrStdout(), done, t.Role, t.Name, command.Clean(key))
			return nil
		},
	}
	at.flags(c)
	return c
}
