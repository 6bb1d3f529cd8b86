package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/broker"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/daemon"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/hub"
	"github.com/netport/netport/server/internal/registry"
)

// TestListsFitTheScreen: with the longest names, in a pipe.
func TestListsFitTheScreen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	if err := admin.MakeServer(dir, "example.org", "127.0.0.1:443", "127.0.0.1:443"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, config.ConfigFile)
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	happen(t, cfg.State, commandtest.Filled[[]audit.Record]())
	policy, chain := filepath.Join(dir, config.PolicyFile), filepath.Join(dir, "chain.pem")
	if err := os.WriteFile(chain, []byte("it is not looked into here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := commandtest.Filled[admin.CAStatus]()
	diff := commandtest.Filled[admin.PolicyDiff]()
	diff.Warnings = nil // they go to standard error
	tokens := commandtest.Filled[[]enrol.Token]()
	tokens[1].Used = [32]byte{}
	commandtest.Lists{
		Program: func() *cobra.Command { return New(func(privilege.Set) error { return nil }) },
		Socket:  cfg.Socket,
		Answers: map[string]any{
			daemon.CommandStatus:    commandtest.Filled[daemon.Status](),
			daemon.CommandPortals:   commandtest.Filled[[]hub.PortalView](),
			daemon.CommandRelays:    commandtest.Filled[[]hub.RelayView](),
			daemon.CommandSessions:  commandtest.Filled[[]broker.SessionView](),
			admin.CommandAdmins:     commandtest.Filled[[]registry.Admin](),
			admin.CommandEnrolments: tokens,
			admin.CommandAllowed:    commandtest.Filled[[]admin.AllowedOpening](),
			admin.CommandShow:       commandtest.Filled[admin.Shown](),
			admin.CommandDiff:       diff,
			admin.CommandExplain:    commandtest.Filled[admin.Explained](),
			admin.CommandCAStatus:   ca, admin.CommandCARoll: ca, admin.CommandCADrop: ca, admin.CommandCATrust: ca, admin.CommandCAInstall: ca,
		},
		Args: []string{"--config", file},
		Shown: map[string][]string{
			"status": nil, "portals": nil, "relays": nil, "sessions": nil, "admins": nil, "audit": nil, "enrolments": nil,
			"allow": {"--list"}, "policy show": nil, "policy diff": {policy}, "explain": {"ann tcp://127.0.0.1:1 -> bo tcp://127.0.0.1:2"},
			"ca status": nil, "ca roll": nil, "ca drop": {"3f9a0c1d"}, "ca trust": {chain}, "ca install": {chain},
		},
		Once: []string{"policy diff", "explain", "ca roll", "ca drop", "ca trust", "ca install"},
		Sentences: []string{
			"invite portal", "invite relay", "invite admin", "revoke", "revoke portal", "revoke relay", "revoke admin", "revoke authority",
			"audit verify", "policy check", "policy test", "policy apply", "policy install",
		},
	}.Check(t)
}

// happen writes audit records.
func happen(t *testing.T, folder string, records []audit.Record) {
	t.Helper()
	l := audit.New(folder, slog.New(slog.DiscardHandler))
	for _, r := range records {
		l.Write(r)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.Run(ended); err != nil {
		t.Fatal(err)
	}
}
