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
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/remote"
)

// target is whom a command asks: the server of this machine, or as an admin one that is
// elsewhere.
type target struct {
	config        string
	server, admin string
}

// flags adds the flags of a command that asks a server.
func (t *target) flags(c *cobra.Command) {
	configFlag(c, &t.config)
	c.Flags().StringVar(&t.server, "server", "", "ask the server at `HOST[:PORT]` from this machine, as an admin")
	c.Flags().StringVar(&t.admin, "admin", "", "ask from this machine as the admin of this `FILE`; with --server alone "+remote.DefaultFile)
}

func (t *target) isRemote() bool { return t.server != "" || t.admin != "" }

// place is where a target that is elsewhere is.
func (t *target) place(c *cobra.Command) remote.Place {
	p := remote.Place{File: t.admin, Server: t.server, Notes: c.ErrOrStderr()}
	if p.File == "" {
		p.File = remote.DefaultFile
	}
	return p
}

// domain returns the domain of the server.
func (t *target) domain(c *cobra.Command) (string, error) {
	if t.isRemote() {
		return t.place(c).Domain()
	}
	cfg, err := config.Load(t.config)
	if err != nil {
		return "", err
	}
	return cfg.Domain, nil
}

// askDaemon asks the running server.
func (t *target) askDaemon(c *cobra.Command, request string, args, result any) error {
	if t.isRemote() {
		return t.askRemote(c, request, args, result)
	}
	cfg, err := config.Load(t.config)
	if err != nil {
		return err
	}
	return local.Call(c.Context(), cfg.Socket, request, args, result)
}

// askState asks the running server or, where none runs on this machine, the state itself.
func (t *target) askState(c *cobra.Command, request string, args, result any) error {
	if t.isRemote() {
		return t.askRemote(c, request, args, result)
	}
	cfg, err := config.Load(t.config)
	if err != nil {
		return err
	}
	err = local.Call(c.Context(), cfg.Socket, request, args, result)
	if !errors.Is(err, local.ErrNoDaemon) {
		return err
	}
	return askStopped(c.Context(), cfg, request, args, result)
}

func (t *target) askRemote(c *cobra.Command, request string, args, result any) error {
	if c.Flags().Changed("config") {
		return command.Usagef("--config is of a server on this machine, and --server and --admin are of one elsewhere")
	}
	return t.place(c).Call(c.Context(), request, args, result)
}

// askStopped has the state of a server that does not run answer.
func askStopped(ctx context.Context, cfg *config.Config, request string, args, result any) error {
	caller := local.Here()                 // who became the daemon's user would be named after it
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
	answer, err := s.Commands()[request](local.WithCaller(ctx, caller), raw)
	if err != nil {
		return err
	}
	raw, err = json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, result)
}

// onServerOnly has a command say why it takes no --server.
func onServerOnly(c *cobra.Command, why string) {
	c.Flags().Var(refusedFlag(why), "server", "")
	c.Flags().Var(refusedFlag(why), "admin", "")
	c.Flags().MarkHidden("server")
	c.Flags().MarkHidden("admin")
}

// refusedFlag is a flag that is not taken, and says why.
type refusedFlag string

func (refusedFlag) String() string     { return "" }
func (refusedFlag) Type() string       { return "string" }
func (f refusedFlag) Set(string) error { return errors.New(string(f)) }
