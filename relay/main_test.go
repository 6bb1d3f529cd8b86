//go:build unix

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/relay/internal/cli"
)

const name = "netport-relay"

// TestMain runs the program where the test's binary is installed as that.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == name {
		main()
	}
	os.Exit(m.Run())
}

// B91, B94: what is used wrongly is refused. There is no port on a command line of the relay.
func TestMistakes(t *testing.T) {
	commandtest.Mistakes{Program: func() *cobra.Command { return cli.New(privilege.Keep) }}.Check(t)
}

// B100.
func TestHelpNeedsNothing(t *testing.T) { commandtest.CheckHelp(t, name, cli.New(privilege.Keep)) }
