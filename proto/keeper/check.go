package keeper

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/netport/netport/proto/identity"
)

// Check returns what is wrong with the files that a Keeper of this configuration would begin
// with. It changes nothing, so a Keeper may be at work.
func Check(cfg Config, now func() time.Time) (mistakes []error) {
	c, err := Look(cfg, now)
	if err == nil {
		err = Lapsed(cfg.Certificate, c.Leaf(), now())
	}
	if err != nil {
		mistakes = append(mistakes, err)
	}
	name := filepath.Join(cfg.State, revocationsFile)
	b, err := identity.ReadFileLimit(name, maxLog)
	switch good, _ := parseLog(b); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		mistakes = append(mistakes, err)
	case good < len(b) || len(b) == 0:
		mistakes = append(mistakes, fmt.Errorf("read %s: it is damaged after %d bytes: what is missing, a server has to tell again", name, good))
	}
	return mistakes
}

// Lapsed returns an error if a certificate, which is in a file, is not valid at a time.
func Lapsed(file string, c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("use certificate %s: it ended at %s: it is renewed when that is still allowed, else join anew with a token", file, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("use certificate %s: it begins at %s: is the clock of this machine right?", file, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
