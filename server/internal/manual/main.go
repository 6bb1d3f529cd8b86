// Command manual writes the manual pages, shell completions and example files of
// netport-server.
package main

import (
	"os"

	"github.com/netport/netport/proto/manual"
	"github.com/netport/netport/server/internal/cli"
	"github.com/netport/netport/server/internal/config"
)

func main() {
	os.Exit(manual.Main(cli.New(nil),
		manual.Example{Name: config.PolicyFile, Text: config.Policy("example.org")},
	))
}
