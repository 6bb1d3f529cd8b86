// Command manual writes the manual pages and shell completions of netport-relay.
package main

import (
	"os"

	"github.com/netport/netport/proto/manual"
	"github.com/netport/netport/relay/internal/cli"
)

func main() { os.Exit(manual.Main(cli.New(nil))) }
