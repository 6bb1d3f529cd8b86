// Command netport-portal forwards connections between two private networks:
// it runs on each side, needs no port to be opened, and listens and dials as the
// policy grants.
package main

import (
	"os"

	"github.com/netport/netport/portal/internal/cli"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/privilege"
)

func main() {
	command.Guard()
	os.Exit(command.Main(cli.Root(privilege.Keep)))
}
