// Package cli is the command line of netport-server.
package cli

import (
	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/config"
)

// New returns the root command. secure is how a server that runs gives back
// capabilities (privilege.Keep).
func New(secure func(keep privilege.Set) error) *cobra.Command {
	root := command.Root("netport-server", "Decide who may reach what, and bring portals together")
	root.AddCommand(
		newInit(), newRun(secure), newInvite(), newEnrolments(), newIssue(), newRevoke(), newCA(), newPolicy(), newExplain(), newAllow(),
		newJoin(), newAdmins(), newStatus(), newPortals(), newRelays(), newSessions(), newAudit(),
	)
	return root
}

// configFlag adds --config to a command.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", config.Default, "the server's configuration `FILE`")
}

// jsonFlag adds --json to a command.
func jsonFlag(c *cobra.Command, asJSON *bool) {
	c.Flags().BoolVar(asJSON, "json", false, "print JSON")
}
