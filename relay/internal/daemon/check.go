package daemon

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"

	"github.com/netport/netport/relay/internal/config"
)

// Check returns what is wrong with the files of a relay: its keys, certificates and state. It
// opens no port and no socket, takes no lock and changes nothing.
func Check(c config.Config) (mistakes []error) {
	mistakes = keeper.Check(keeper.Config{Role: identity.Relay, Certificate: c.Certificate, Key: c.Key, CA: c.CA, State: c.State, Policy: c.PolicyKey}, time.Now)
	if _, err := givers(c); err != nil {
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
