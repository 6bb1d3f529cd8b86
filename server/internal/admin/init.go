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
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/store"
)

// serverName is the name of the server in its certificate.
const serverName = "server"

// serverLife is how long the first certificate of the server lasts: a server that
// makes none itself has that long.
const serverLife = 365 * 24 * time.Hour

// MakeServer makes the folder of a new server, whole or not at all: under another
// name first, which is then given up for its own. A folder that holds anything
// is refused.
func MakeServer(dir, domain, address, listen string) error {
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
	if err := fillServer(draft, domain, address, listen); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	if err := os.Rename(draft, dir); err != nil {
		return fmt.Errorf("make server in %s: %w", dir, cause(err))
	}
	return nil
}

func fillServer(dir, domain, address, listen string) error {
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
	newSigner := func(name string) func() error {
		return func() error {
			_, signer, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			return identity.SaveKey(in(name), signer)
		}
	}
	for _, step := range []func() error{
		write("ca.pem", identity.EncodeCertificates(authority.Certificate)),
		func() error { return identity.SaveKey(in("ca.key"), authority.Key()) },
		write("cert.pem", identity.EncodeCertificates(chain...)),
		func() error { return identity.SaveKey(in("key.pem"), key) },
		newSigner("policy.key"),
		newSigner("stamp.key"),
		write(config.ConfigFile, config.Server(domain, address, listen)),
		write(config.PolicyFile, config.Policy(domain)),
		func() error {
			s, err := store.Create(in(config.StateFile))
			if err != nil {
				return err
			}
			return s.Close()
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
