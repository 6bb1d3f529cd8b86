//go:build unix

package main

import (
	"testing"

	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/cli"
)

// B100.
func TestHelpNeedsNothing(t *testing.T) {
	commandtest.CheckHelp(t, "netport-server", cli.New(privilege.Keep))
}
