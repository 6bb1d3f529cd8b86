package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/store"
)

// serverName is the name of the server in its certificate.
const serverName = "server"

// serverDays is how long the certificate of the server lasts.
const serverDays = 365

func newInit() *cobra.Command {
	var dir, domain, address string
	c := &cobra.Command{
		Use:     "init --dir DIR --domain DOMAIN --address HOST[:PORT]",
		Short:   "Make a CA, an identity and the configuration of a new server",
		Example: "  netport-server init --dir /etc/netport/server --domain example.org --address netport.example.org",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, f := range []string{"dir", "domain", "address"} {
				if !c.Flags().Changed(f) {
					return command.Usagef("--%s is missing; see \"netport-server init --help\"", f)
				}
			}
			if err := identity.CheckName(domain); err != nil {
				return command.Usagef("--domain: %w", err)
			}
			address, listen, err := config.ParseAddress(address)
			if err != nil {
				return command.Usagef("--address: %w", err)
			}
			if err := makeServer(dir, domain, address, listen); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), `Made a server for the domain %s in %s.

The CA key and the policy key are on this machine too: whoever takes it over can
make identities and grant what he likes. Keep %s for the server alone.

Next:
  netport-server run --config %[3]s/config.toml
  netport-server issue relay relay-1 --address HOST --out relay-1 --config %[3]s/config.toml
  netport-server issue portal NAME --out NAME --config %[3]s/config.toml
  netport-server policy apply %[3]s/policy.toml --config %[3]s/config.toml
`, domain, dir, filepath.Clean(dir))
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the folder to make")
	c.Flags().StringVar(&domain, "domain", "", "the domain of all names, as in spiffe://DOMAIN/portal/NAME")
	c.Flags().StringVar(&address, "address", "", "where portals and relays find this server: `HOST[:PORT]`, port 443 if none is given")
	return c
}

// makeServer makes the folder whole or not at all: under another name first,
// which is then given up for its own.
func makeServer(dir, domain, address, listen string) error {
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
	cert, err := authority.Issue(identity.Server, serverName, key.Public(), serverDays)
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
		write("cert.pem", identity.EncodeCertificates(cert)),
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
