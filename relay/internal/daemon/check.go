package daemon

import (
	"errors"
	"io/fs"
	"os"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"

	"github.com/netport/netport/relay/internal/config"
)

// Check returns what would keep a relay from starting, as far as its files tell. It
// opens no port and no socket, and writes nothing.
func Check(c config.Config) (mistakes []error) {
	if _, err := identity.Load(c.Certificate, c.Key, c.CA, identity.Relay, nil); err != nil {
		mistakes = append(mistakes, err)
	}
	if _, err := os.Stat(c.State); errors.Is(err, fs.ErrNotExist) {
		return mistakes // it will be made
	}
	if err := local.CheckState(c.State); err != nil {
		mistakes = append(mistakes, err)
	}
	return mistakes
}
