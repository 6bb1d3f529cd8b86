package main

import (
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/cli"
	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
)

// B91, B92, B94: what is used wrongly is refused.
func TestMistakes(t *testing.T) {
	commandtest.Mistakes{
		Program: func() *cobra.Command { return cli.Root(privilege.Keep) },
		Ports:   []string{"connect plant tcp://10.0.0.5:%s", "connect plant udp://[2001:db8::1]:%s"},
	}.Check(t)
}
