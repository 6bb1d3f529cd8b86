package admin

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/store"
)

// Check returns what is wrong with the files of a configuration, with its state, of which it
// looks at a copy, and with its policy file, whose tests it runs; and whom the domain
// trusts, as far as that can be read.
func Check(cfg *config.Config) (trusted []*x509.Certificate, mistakes []error) {
	note := func(err error) {
		if err != nil {
			mistakes = append(mistakes, err)
		}
	}
	_, _, err := loadPolicyKey(cfg)
	note(err)
	_, err = LoadSigner(cfg.StampKey)
	note(err)
	note(local.CheckState(cfg.State))
	if len(cfg.CACommand) > 0 {
		if _, err := exec.LookPath(cfg.CACommand[0]); err != nil {
			note(fmt.Errorf("ca_command: %w", err))
		}
	}
	if _, err := os.Stat(cfg.StateFile()); errors.Is(err, fs.ErrNotExist) {
		note(checkFirstCA(cfg)) // later the state has the authorities
		trusted, _ = identity.LoadCertificates(cfg.CA)
	} else if len(mistakes) == 0 {
		trusted, err = checkState(cfg)
		note(err)
	}
	return trusted, append(mistakes, checkPolicyFile(cfg)...)
}

// checkState opens a copy of the state as a server would open the state. A server may be
// running with that.
func checkState(cfg *config.Config) ([]*x509.Certificate, error) {
	dir, err := os.MkdirTemp("", "netport-check-")
	if err != nil {
		return nil, fmt.Errorf("copy state %s: %w", cfg.StateFile(), err)
	}
	defer os.RemoveAll(dir)
	of, err := config.Load(cfg.File)
	if err != nil {
		return nil, err
	}
	of.State = dir
	if err := store.Snapshot(cfg.StateFile(), of.StateFile()); err != nil {
		return nil, err
	}
	s, err := Open(of, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), dir, filepath.Clean(cfg.State)))
	}
	defer s.Close()
	return s.Bundle().Trusted, nil
}

// checkFirstCA checks the authorities that a server begins with.
func checkFirstCA(cfg *config.Config) (err error) {
	if len(cfg.CACommand) > 0 || cfg.CAKey == "" {
		_, err = identity.LoadCertificates(cfg.CA)
	} else {
		_, err = ca.Load(cfg.Domain, cfg.CA, cfg.CAKey, cfg.CAPassphrase, time.Now)
	}
	return err
}

// checkPolicyFile checks the policy file; there need not be one.
func checkPolicyFile(cfg *config.Config) (mistakes []error) {
	if _, err := os.Stat(cfg.Policy); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	b, err := policy.ReadFile(cfg.Policy)
	if err != nil {
		return []error{err}
	}
	p, result, err := CheckPolicy(PolicyRequest{Step: PolicyTest, File: cfg.Policy, Source: string(b)}, nil, time.Now())
	if err != nil {
		return []error{err}
	}
	if p.Domain != cfg.Domain {
		mistakes = append(mistakes, fmt.Errorf("policy %s is of the domain %s, the configuration says %s", cfg.Policy, p.Domain, cfg.Domain))
	}
	for _, failed := range result.Failed {
		mistakes = append(mistakes, errors.New(failed))
	}
	return mistakes
}
