package daemon

import (
	"errors"
	"io/fs"
	"os"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/keystore"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
)

// Check returns what would keep a portal from starting, as far as its files tell. It
// opens no port and no socket, and writes nothing.
func Check(c config.Config) (mistakes []error) {
	if _, err := identity.LoadWith(&keystore.Store{TPM: c.TPM}, c.Certificate, c.Key, c.CA, identity.Portal, nil); err != nil {
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
