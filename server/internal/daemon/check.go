package daemon

import (
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
)

// Check returns what is wrong with the files of a server: its configuration, keys,
// certificates, state and policy file. It opens no port and no socket, takes no lock and
// changes nothing.
func Check(cfg *config.Config) []error {
	trusted, mistakes := admin.Check(cfg)
	if len(trusted) == 0 { // what is wrong with it has been said
		if _, err := identity.LoadKey(cfg.Key); err != nil {
			mistakes = append(mistakes, err)
		}
		return mistakes
	}
	own, err := loadOwn(cfg, trusted)
	if err == nil {
		err = keeper.Lapsed(cfg.Certificate, own.Leaf(), time.Now())
	}
	if err != nil {
		mistakes = append(mistakes, err)
	}
	return mistakes
}
