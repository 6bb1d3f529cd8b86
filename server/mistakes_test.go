package main

import (
	"testing"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command/commandtest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/cli"
)

// B91, B92, B94: what is used wrongly is refused.
func TestMistakes(t *testing.T) {
	commandtest.Mistakes{
		Program: func() *cobra.Command { return cli.New(privilege.Keep) },
		Ports: []string{
			"init --dir no-such-folder --domain example.org --address 192.0.2.1:%s",
			"init --dir no-such-folder --domain example.org --address [2001:db8::1]:%s",
			"status --server netport.example.org:%s",
			"invite portal ann --server 192.0.2.1:%s",
		},
	}.Check(t)
}
