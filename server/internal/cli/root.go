// Package cli is the command line of netport-server.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/folder"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
)

// New returns the root command. secure is how a server that runs gives back
// capabilities (privilege.Keep).
func New(secure func(keep privilege.Set) error) *cobra.Command {
	root := command.Root("netport-server", "Decide who may reach what, and bring portals together")
	root.AddCommand(
		newInit(), newRun(secure), newInvite(), newEnrolments(), newIssue(), newRevoke(), newCA(), newPolicy(), newExplain(), newAllow(),
		newStatus(), newPortals(), newRelays(), newSessions(), newAudit(),
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

// askDaemon asks the running daemon.
func askDaemon(ctx context.Context, file, request string, args, result any) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	return local.Call(ctx, cfg.Socket, request, args, result)
}

// askState asks the running daemon or, where none runs, the state itself.
func askState(ctx context.Context, file, request string, args, result any) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	err = local.Call(ctx, cfg.Socket, request, args, result)
	if !errors.Is(err, local.ErrNoDaemon) {
		return err
	}
	root, err := folder.AsOwner(cfg.State) // what is made is the daemon's
	if err != nil {
		return err
	}
	defer root()
	s, err := admin.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	defer s.Audit.Flush()
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	answer, err := s.Commands()[request](ctx, raw)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, result)
}
