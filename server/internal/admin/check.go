package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/policy"
)

// Check returns what is wrong with the files of a configuration, its state apart, and
// with its policy file, whose tests it runs.
func Check(cfg *config.Config) (mistakes []error) {
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
	}
	return append(mistakes, checkPolicyFile(cfg)...)
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
