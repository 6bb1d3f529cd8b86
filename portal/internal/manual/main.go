// Command manual writes the manual pages and shell completions of netport-portal.
package main

import (
	"os"

	"github.com/netport/netport/portal/internal/cli"
	"github.com/netport/netport/proto/manual"
)

func main() { os.Exit(manual.Main(cli.Root(nil))) }
