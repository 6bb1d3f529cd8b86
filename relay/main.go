// Command netport-relay carries the bytes of two portals that cannot reach
// each other. It knows which flows belong together, and nothing else of them.
package main

import (
	"os"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/privilege"

	"github.com/netport/netport/relay/internal/cli"
)

func main() {
	command.Guard()
	os.Exit(command.Main(cli.New(privilege.Keep)))
}
