package admin

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/store"
	"github.com/netport/netport/server/internal/strict"
)

// KnownFile is the file of what the operator's machine knows of a strict server's
// domain.
const KnownFile = "known.toml"

// serverName is the name of the server in its certificate.
const serverName = "server"

// serverLife is how long the first certificate of the server lasts: a server that
// makes none itself has that long.
const serverLife = 365 * 24 * time.Hour

// MakeServer makes the folder of a new server, whole or not at all.
func MakeServer(dir, domain, address, listen string) error {
	return makeFolder(dir, func(draft string) error { return fillServer(draft, "", domain, address, listen) })
}

// MakeStrictServer is MakeServer for a server that has neither the policy key nor the CA
// key: they are in a folder of the operator's, with the policy and what is known of the
// domain.
func MakeStrictServer(dir, operator, domain, address, listen string) error {
	return makeFolder(operator, func(safe string) error {
		return makeFolder(dir, func(draft string) error { return fillServer(draft, safe, domain, address, listen) })
	})
}

// makeFolder makes a folder whole or not at all: under another name first, which is
// then given up for its own. A folder that holds anything is refused; where there was an
// empty one, all is its owner's, for whom a package may have made it.
func makeFolder(dir string, fill func(draft string) error) error {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("make server in %s: the folder is not empty; name another one", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	draft, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*") // mode 0700
	if err != nil {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	defer os.RemoveAll(draft)
	if err := fill(draft); err != nil {
		return err
	}
	if err := giveTo(draft, dir); err != nil {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	if err := os.Rename(draft, dir); err != nil {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	return nil
}

// giveTo gives a folder, and what is in it, to the owner of another one, if that is there.
func giveTo(draft, dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if int(owner.Uid) == os.Geteuid() {
		return nil
	}
	return filepath.WalkDir(draft, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(file, int(owner.Uid), int(owner.Gid))
	})
}

// fillServer writes all that a new server has; with a folder for what is safe from it,
// the policy key, the policy and the CA key go there.
func fillServer(dir, safe, domain, address, listen string) error {
	authority, err := ca.New(domain, time.Now)
	if err != nil {
		return err
	}
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	chain, err := authority.Issue(context.Background(), ca.Order{Role: identity.Server, Name: serverName, Public: key.Public(), Life: serverLife})
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) func() error {
		return func() error { return identity.CreateFile(in(name), b, 0o600) }
	}
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	_, stamp, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	policyDir, policyKey, caDir, caKey := dir, "policy.key", dir, "ca.key"
	if safe != "" {
		policyDir, policyKey, caDir, caKey = safe, grant.FormatKey(public), safe, ""
	}
	for _, step := range []func() error{
		write("ca.pem", identity.EncodeCertificates(authority.Certificate)),
		func() error { return identity.SaveKey(filepath.Join(caDir, "ca.key"), authority.Key()) },
		write("cert.pem", identity.EncodeCertificates(chain...)),
		func() error { return identity.SaveKey(in("key.pem"), key) },
		func() error { return identity.SaveKey(filepath.Join(policyDir, "policy.key"), signer) },
		func() error { return identity.SaveKey(in("stamp.key"), stamp) },
		write(config.ConfigFile, config.Server(domain, address, listen, policyKey, caKey)),
		func() error {
			return identity.CreateFile(filepath.Join(policyDir, config.PolicyFile), config.Policy(domain), 0o600)
		},
		func() error {
			s, err := store.Create(in(config.StateFile))
			if err != nil {
				return err
			}
			defer s.Close()
			if safe == "" {
				return nil
			}
			if err := identity.CreateFile(filepath.Join(safe, "ca.pem"), identity.EncodeCertificates(authority.Certificate), 0o600); err != nil {
				return err
			}
			known := strict.Known{
				Domain: domain, Authorities: []identity.KeyHash{identity.HashKey(authority.Certificate)},
				Servers: map[string][]identity.KeyHash{serverName: {identity.HashPublic(key.Public())}},
			}
			if err := known.Save(filepath.Join(safe, KnownFile)); err != nil {
				return err
			}
			return keepFirstSigned(s, authority.Certificate, signer)
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// cause strips the path that package os puts before its errors.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
