package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/join"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/registry"
)

func newIssue() *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:     "issue",
		Short:   "Enrol a portal or a relay and make its files",
		Example: "  netport-server issue portal laptop-ann --out laptop-ann",
	})
	c.AddCommand(newIssuePortal(), newIssueRelay())
	return c
}

// issueFlags are those that both kinds have.
type issueFlags struct {
	at      target
	out     string
	replace bool
}

func (f *issueFlags) add(c *cobra.Command) {
	f.at.flags(c)
	c.Flags().StringVar(&f.out, "out", "", "the folder for the files")
	c.Flags().BoolVar(&f.replace, "replace", false, "give a name that is enrolled a new key; the old key is worth nothing then")
}

func newIssuePortal() *cobra.Command {
	var f issueFlags
	c := &cobra.Command{
		Use:   "portal NAME --out DIR",
		Short: "Enrol a portal: key.pem, cert.pem, ca.pem and config.toml in DIR",
		Long: `Enrol a portal: key.pem, cert.pem, ca.pem and config.toml in DIR.

A name has one key. Permissions name portals by name and key, so --replace makes
a lost or stolen key worthless: its portal is disconnected, and the permissions
of the name are signed anew for the new key.`,
		Example: "  netport-server issue portal laptop-ann --out laptop-ann",
		Args:    command.Args("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			issued, err := f.issue(c, admin.IssueRequest{Role: identity.Portal, Name: args[0], Replace: f.replace})
			if err != nil {
				return err
			}
			if err := f.write(issued, join.Portal(join.Reach{Servers: issued.Servers}, issued.PolicyKey, "")); err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "Enrolled the portal %s: its files are in %s.\n", args[0], f.out)
			if issued.Added+issued.Removed > 0 {
				fmt.Fprintf(out, "The policy in force: %d grants signed for its key, %d taken back.\n", issued.Added, issued.Removed)
			}
			fmt.Fprintf(out, "Next: bring the folder to its machine unread, and there:\n  netport-portal run --config %s\n", filepath.Join(f.out, config.ConfigFile))
			return nil
		},
	}
	f.add(c)
	return c
}

func newIssueRelay() *cobra.Command {
	var f issueFlags
	var addresses []string
	c := &cobra.Command{
		Use:   "relay NAME --address HOST[,HOST] --out DIR",
		Short: "Enrol a relay: key.pem, cert.pem, ca.pem and config.toml in DIR",
		Long: `Enrol a relay: key.pem, cert.pem, ca.pem and config.toml in DIR.

The addresses are what portals are told to dial. The server keeps them and never
asks the relay for them, so that no relay can send portals somewhere else.`,
		Example: "  netport-server issue relay relay-1 --address 192.0.2.7,2001:db8::7 --out relay-1",
		Args:    command.Args("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(addresses) == 0 {
				return command.Usagef("--address is missing; see \"%s --help\"", c.CommandPath())
			}
			for _, a := range addresses {
				if err := registry.CheckAddress(a); err != nil {
					return command.Usagef("--address: %w", err)
				}
			}
			issued, err := f.issue(c, admin.IssueRequest{Role: identity.Relay, Name: args[0], Addresses: addresses, Replace: f.replace})
			if err != nil {
				return err
			}
			if err := f.write(issued, join.Relay(join.Reach{Servers: issued.Servers}, issued.PolicyKey)); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Enrolled the relay %s at %s: its files are in %s.\nNext: bring the folder to its machine unread, and there:\n  netport-relay run --config %s\n",
				args[0], strings.Join(addresses, " and "), f.out, filepath.Join(f.out, config.ConfigFile))
			return nil
		},
	}
	f.add(c)
	c.Flags().StringSliceVar(&addresses, "address", nil, "where portals find the relay: IP addresses or DNS names")
	return c
}

// The names of the files that issue makes.
const (
	keyFile  = "key.pem"
	certFile = "cert.pem"
	caFile   = "ca.pem"
)

// issue makes the key, here, and has the certificate made for it.
func (f *issueFlags) issue(c *cobra.Command, r admin.IssueRequest) (admin.Issued, error) {
	if err := identity.CheckName(r.Name); err != nil {
		return admin.Issued{}, command.Usagef("%w", err)
	}
	if f.out == "" {
		return admin.Issued{}, command.Usagef("--out is missing; see \"%s --help\"", c.CommandPath())
	}
	key, err := ca.NewKey()
	if err != nil {
		return admin.Issued{}, err
	}
	domain, err := f.at.domain(c)
	if err != nil {
		return admin.Issued{}, err
	}
	id, err := identity.New(domain, r.Role, r.Name)
	if err != nil {
		return admin.Issued{}, err
	}
	if r.Request, err = identity.NewRequest(id, key); err != nil {
		return admin.Issued{}, err
	}
	if err := f.prepare(); err != nil {
		return admin.Issued{}, err
	}
	// The key is written first: a name that is enrolled without its key would
	// have to be replaced.
	if err := identity.SaveKey(filepath.Join(f.out, keyFile), key); err != nil {
		return admin.Issued{}, err
	}
	var issued admin.Issued
	if err := f.at.askState(c, admin.CommandIssue, r, &issued); err != nil {
		os.Remove(filepath.Join(f.out, keyFile))
		return admin.Issued{}, err
	}
	return issued, nil
}

// prepare makes the folder and refuses one that holds such files already.
func (f *issueFlags) prepare() error {
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(f.out)), 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", f.out, cause(err))
	}
	if err := os.Mkdir(f.out, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder %s: %w", f.out, cause(err))
	}
	for _, name := range []string{keyFile, certFile, caFile, config.ConfigFile} {
		if _, err := os.Lstat(filepath.Join(f.out, name)); err == nil {
			return fmt.Errorf("make files in %s: %s is there already; move it away or name another folder", f.out, name)
		}
	}
	return nil
}

func (f *issueFlags) write(issued admin.Issued, cfg []byte) error {
	for _, w := range []struct {
		name string
		b    []byte
	}{{certFile, []byte(issued.Certificate)}, {caFile, []byte(issued.CA)}, {config.ConfigFile, cfg}} {
		if err := identity.CreateFile(filepath.Join(f.out, w.name), w.b, 0o600); err != nil {
			return fmt.Errorf("%w; it is enrolled now: empty the folder and issue it again with --replace", err)
		}
	}
	return nil
}
