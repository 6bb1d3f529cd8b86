package daemon

import (
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
)

// Check returns what would keep a server from starting, as far as its files tell, and
// the mistakes of its policy file. It opens no port, no socket and no state, and writes
// nothing.
func Check(cfg *config.Config) []error {
	mistakes := admin.Check(cfg)
	trusted, err := identity.LoadCertificates(cfg.CA)
	if err != nil {
		// Where there is a state, that has whom the domain trusts.
		if _, err := identity.LoadKey(cfg.Key); err != nil {
			mistakes = append(mistakes, err)
		}
		return mistakes
	}
	if _, err := loadOwn(cfg, trusted); err != nil {
		mistakes = append(mistakes, err)
	}
	return mistakes
}
