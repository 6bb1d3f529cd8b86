// Command manual writes the manual pages and shell completions of netport-server.
package main

import (
	"os"

	"github.com/netport/netport/proto/manual"
	"github.com/netport/netport/server/internal/cli"
)

func main() { os.Exit(manual.Main(cli.New(nil))) }
