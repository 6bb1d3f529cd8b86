package ca

import (
	"errors"
	"time"

	"github.com/netport/netport/proto/conffile"
)

const (
	// DefaultLife is how long the certificates of portals and relays last if the
	// configuration does not say.
	DefaultLife = 30 * day
	minLife     = time.Minute
	maxLife     = rootLife
)

// ParseLife reads how long a certificate lasts: "90m", "12h", "30d", "2y".
func ParseLife(s string) (time.Duration, error) {
	life, err := conffile.ParseDuration(s)
	if err != nil {
		return 0, err
	}
	if life < minLife || life > maxLife {
		return 0, errors.New("a certificate lasts a minute to 10 years, as in \"30d\"")
	}
	return life, nil
}
