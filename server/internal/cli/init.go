package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
)

func newInit() *cobra.Command {
	var dir, domain, address, operator string
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
			if operator != "" {
				if err := admin.MakeStrictServer(dir, operator, domain, address, listen); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), strictNext, domain, dir, filepath.Clean(dir), filepath.Clean(operator))
				return nil
			}
			if err := admin.MakeServer(dir, domain, address, listen); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), `Made a server for the domain %s in %s.

The CA key and the policy key are on this machine too: whoever takes it over can
make identities and grant what he likes. Keep %s for the server alone.

Next:
  netport-server run --config %[3]s/config.toml      (with a package: systemctl enable --now netport-server)
  netport-server invite relay relay-1 --address HOST --config %[3]s/config.toml
  netport-server invite portal NAME --config %[3]s/config.toml
  netport-server policy apply %[3]s/policy.toml --config %[3]s/config.toml
`, domain, dir, filepath.Clean(dir))
			return nil
		},
	}
	onServerOnly(c, "a new server is made on its own machine")
	c.Flags().StringVar(&operator, "operator", "", "strict mode: the `FOLDER` to make for the policy key, the CA key and the policy, which the server does not need")
	c.Flags().StringVar(&dir, "dir", "", "the folder to make")
	c.Flags().StringVar(&domain, "domain", "", "the domain of all names, as in spiffe://DOMAIN/portal/NAME")
	c.Flags().StringVar(&address, "address", "", "where portals and relays find this server: `HOST[:PORT]`, port 443 if none is given")
	return c
}

const strictNext = `Made a server for the domain %s in %s.

It has neither the policy key nor the CA key: whoever takes it over can deny, but he
makes no identities and grants nothing. The keys are in %[4]s: move that folder to
another machine, and keep it safe. Nobody joins, and nothing is granted, without them.

Next:
  netport-server run --config %[3]s/config.toml
  netport-server invite portal NAME --config %[3]s/config.toml         (joining waits)
  netport-server ca pending --config %[3]s/config.toml > requests
  netport-server ca sign --ca %[4]s/ca.pem --key %[4]s/ca.key \
    --known %[4]s/known.toml < requests > certificates      (where the folder is)
  netport-server ca install --config %[3]s/config.toml < certificates
  netport-server policy request --config %[3]s/config.toml > request
  netport-server policy sign --key %[4]s/policy.key --policy %[4]s/policy.toml \
    --known %[4]s/known.toml < request > signed        (where the folder is)
  netport-server policy install --config %[3]s/config.toml < signed
`

// cause strips the path that package os puts before its errors.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
