package command

import (
	"slices"

	"github.com/netport/netport/proto/invite"
)

// checkNoToken refuses a command line that has a join token anywhere, without repeating it.
func checkNoToken(args []string) error {
	if slices.ContainsFunc(args, invite.Looks) {
		return Usagef("a token on the command line can be read by every process of this machine, so this one is spoilt: have the server make another, and give that on standard input or in a file with --token")
	}
	return nil
}
