package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
)

// TestListsFitTheScreen: with the longest names, in a pipe.
func TestListsFitTheScreen(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("servers = [\"127.0.0.1:1\"]\npolicy_key = \"ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	explained := commandtest.Filled[[]daemon.Explanation]()
	for _, e := range explained {
		for i := range e.Steps {
			e.Steps[i].State, e.Steps[i].What = daemon.StepUnsure, "exit portal"
		}
	}
	commandtest.Lists{
		Program: func() *cobra.Command { return Root(func(privilege.Set) error { return nil }) },
		Socket:  filepath.Join(dir, "state", "portal.sock"),
		Answers: map[string]any{
			daemon.CallStatus:  commandtest.Filled[daemon.Status](),
			daemon.CallExplain: explained,
		},
		Args:  []string{"--config", file},
		Shown: map[string][]string{"status": nil, "explain": {"web"}, "doctor": nil},
		Once:  []string{"explain", "doctor"},
	}.Check(t)
}
