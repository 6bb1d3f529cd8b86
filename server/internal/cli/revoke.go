package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
)

func newRevoke() *cobra.Command {
	var at target
	var asJSON bool
	var r admin.RevokeRequest
	c := &cobra.Command{
		Use:   "revoke",
		Short: "Take back a name, a key, a certificate or an authority",
		Long: `Take back a name, a key, a certificate or an authority.

It is on disk when the command returns. Whoever is hit is disconnected at once: from
the server, at the relays, and from the other portals, on every path; portals and
relays that are away hear of it when they are back. A name that was revoked can be
invited anew: its device makes a new key.`,
		Example: `  netport-server revoke portal laptop-ann
  netport-server revoke --key 3f9a0c1d...(64 digits)
  netport-server revoke --serial 8a:41:...`,
		Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if (r.Key == "") == (r.Serial == "") {
				return command.Usagef("say what: portal NAME, relay NAME, admin NAME, authority KEY, --key or --serial; see \"%s --help\"", c.CommandPath())
			}
			return revoke(c, at, asJSON, r)
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	c.Flags().StringVar(&r.Key, "key", "", "the SHA-256 of a public key, 64 hexadecimal digits")
	c.Flags().StringVar(&r.Serial, "serial", "", "the serial number of one certificate, in hexadecimal")
	c.Flags().StringVar(&r.Issuer, "issuer", "", "with --serial: the key of the authority that signed it, if it is not the one that issues now")
	c.AddCommand(newRevokeName(identity.Portal), newRevokeName(identity.Relay), newRevokeName(identity.Admin), newRevokeAuthority())
	return c
}

func newRevokeName(role identity.Role) *cobra.Command {
	var at target
	var asJSON bool
	r := admin.RevokeRequest{Role: role}
	c := &cobra.Command{
		Use:     string(role) + " NAME",
		Short:   "Revoke " + article(role) + " " + string(role) + ": its keys, and all certificates of the name until now",
		Example: "  netport-server revoke " + string(role) + " " + string(role) + "-7",
		Args:    command.Args("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			if err := identity.CheckName(r.Name); err != nil {
				return command.Usagef("%w", err)
			}
			return revoke(c, at, asJSON, r)
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&r.Unknown, "unknown", false, "also if no such name is enrolled")
	return c
}

func newRevokeAuthority() *cobra.Command {
	var at target
	var asJSON bool
	c := &cobra.Command{
		Use:   "authority KEY",
		Short: "Revoke an authority and with it all certificates that it signed",
		Long: `Revoke an authority and with it all certificates that it signed.

Let another one issue first (ca roll, ca install), and give everybody time to renew:
who still has a certificate of this authority has to be invited anew.`,
		Example: "  netport-server revoke authority 3f9a0c1d",
		Args:    command.Args("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			return revoke(c, at, asJSON, admin.RevokeRequest{Authority: args[0]})
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func revoke(c *cobra.Command, at target, asJSON bool, r admin.RevokeRequest) error {
	var result admin.RevokedResult
	if err := at.askState(c, admin.CommandRevoke, r, &result); err != nil {
		return err
	}
	if asJSON {
		return command.JSON(c.OutOrStdout(), result)
	}
	out := c.OutOrStdout()
	for _, what := range result.What {
		fmt.Fprintf(out, "Revoked %s.\n", command.Clean(what))
	}
	if result.Removed > 0 || result.Tokens > 0 {
		fmt.Fprintf(out, "%d grants are taken back, %d invitations are void.\n", result.Removed, result.Tokens)
	}
	return nil
}
