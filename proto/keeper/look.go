package keeper

import (
	"log/slog"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Look returns the credentials that a Keeper of this configuration would begin with, judged
// by the clock now. It changes nothing, so a Keeper may be at work.
func Look(cfg Config, now func() time.Time) (*identity.Credentials, error) {
	if cfg.Keys == nil {
		cfg.Keys = identity.KeyFiles{}
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	k := &Keeper{Config: cfg}
	var err error
	if k.credentials, err = identity.LoadWith(cfg.Keys, cfg.Certificate, cfg.Key, cfg.CA, cfg.Role, now); err != nil {
		return nil, err
	}
	k.loadAuthorities()
	return k.credentials, nil
}
