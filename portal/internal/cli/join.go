package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/keystore"
	"github.com/netport/netport/portal/internal/keystore/tpm"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	joining "github.com/netport/netport/proto/join"
)

// joinCommand is the command that all roles have, with a say in where the key is made.
func joinCommand() *cobra.Command {
	var keys keystore.Store
	var device string // as it is written down; empty: the usual one
	c := joining.Command(identity.Portal, config.DefaultFile, &keys, func(reach joining.Reach, policyKey string) []byte {
		return joining.Portal(reach, policyKey, device)
	})
	c.Long += `

The key is in the file key.pem. With --key tpm it is made in this machine's TPM and never
leaves it: key.pem has it wrapped, in the form that OpenSSL's tpm2 provider reads too. With
a PKCS #11 URI (RFC 7512) it is made on that token, under the label "object", and key.pem
has its URI; the PIN is read from the file that "pin-source" names. A renewal with a new
key makes it in the same place.`
	c.Example += `
  netport-portal join --key tpm < token
  netport-portal join --key 'pkcs11:token=netport;object=portal?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/netport/pin' < token`
	c.Flags().StringVar(&keys.Place, "key", keystore.InFile, "make the key in a `PLACE`: file, tpm, or a PKCS #11 URI")
	c.Flags().StringVar(&keys.TPM, "tpm", tpm.Device, "the TPM's `DEVICE`, or the Unix socket of swtpm")
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := keystore.CheckPlace(keys.Place); err != nil {
			return command.Usagef("--key: %w", err)
		}
		if c.Flags().Changed("tpm") {
			var err error
			if device, err = filepath.Abs(keys.TPM); err != nil {
				return err
			}
		}
		return run(c, args)
	}
	return c
}
