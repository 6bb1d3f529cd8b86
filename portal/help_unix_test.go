//go:build unix

package main

import (
	"testing"

	"github.com/netport/netport/portal/internal/cli"
	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
)

// B100.
func TestHelpNeedsNothing(t *testing.T) {
	commandtest.CheckHelp(t, "netport-portal", cli.Root(privilege.Keep))
}
