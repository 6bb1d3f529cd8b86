package cli

import (
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/relay/internal/daemon"
)

// TestListsFitTheScreen: with the longest names, in a pipe.
func TestListsFitTheScreen(t *testing.T) {
	file := install(t)
	commandtest.Lists{
		Program: func() *cobra.Command { return New(keepAll) },
		Socket:  filepath.Join(filepath.Dir(file), "relay.sock"),
		Answers: map[string]any{"status": commandtest.Filled[daemon.Status]()},
		Args:    []string{"--config", file},
		Shown:   map[string][]string{"status": nil},
	}.Check(t)
}
