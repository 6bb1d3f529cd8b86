package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/keystore"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"
)

// Check returns what is wrong with the files of a portal: its keys, certificates and state. It
// opens no port and no socket, takes no lock and changes nothing.
func Check(c config.Config) (mistakes []error) {
	mistakes = keeper.Check(keeper.Config{
		Role: identity.Portal, Certificate: c.Certificate, Key: c.Key, Keys: &keystore.Store{TPM: c.TPM}, CA: c.CA, State: c.State, Policy: c.PolicyKey,
	}, time.Now)
	if _, err := os.Stat(c.State); errors.Is(err, fs.ErrNotExist) {
		return mistakes // it will be made
	}
	if err := local.CheckState(c.State); err != nil {
		mistakes = append(mistakes, err)
	}
	if _, err := state.Read(c.State); err != nil {
		mistakes = append(mistakes, fmt.Errorf("read what was kept in %s: %w", c.State, err))
	}
	return mistakes
}
