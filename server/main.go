// Command netport-server is the control plane of Netport: it knows who is
// enrolled, what the policy grants, and brings portals together.
package main

import (
	"os"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/server/internal/cli"
)

func main() {
	command.Guard()
	os.Exit(command.Main(cli.New(privilege.Keep)))
}
