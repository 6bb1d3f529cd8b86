package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/strict"
)

func newCA() *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:   "ca",
		Short: "Show and change whose certificates count, and who issues them",
		Long: `Show and change whose certificates count, and who issues them.

Roll over to a new CA of the server's own:

  netport-server ca roll          the new one issues; the old one vouches for it
                                  (portals and relays renew within the hour)
  netport-server ca status        until nobody has a certificate of the old one
  netport-server ca drop KEY      the old one counts no more

Put the root elsewhere, on a machine without a network:

  netport-server ca new --domain example.org --out root     there
  netport-server ca request > request.pem                   here
  netport-server ca sign --out chain.pem --ca root/ca.pem --key root/ca.key < request.pem    there
  netport-server ca install chain.pem                       here

Have no CA key on the server at all (ca_key = ""): who joins or renews waits, and

  ssh server netport-server ca pending |
    netport-server ca sign --ca op/ca.pem --key op/ca.key --known op/known.toml |
    ssh server netport-server ca install

signs for the names and keys that are known, which may run by itself every night. New
names and keys it shows, and they wait until you accept them.`,
		Example: "  netport-server ca status",
	})
	c.AddCommand(
		newCAStatus(),
		newCAChange("roll", "Make a new CA, which issues from now on", "  netport-server ca roll", admin.CommandCARoll),
		newCADrop(), newCARequest(), newCAPending(), newCAInstall(), newCATrust(), newCANew(), newCASign(),
	)
	return c
}

func newCAStatus() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show whose certificates count, and who issues",
		Example: "  netport-server ca status\n  netport-server ca status --watch",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			return askCA(c, at, view, admin.CommandCAStatus, struct{}{})
		},
	}
	at.flags(c)
	view.Flags(c)
	return c
}

// newCAChange makes a command without arguments that shows what is so afterwards.
func newCAChange(name, short, example, request string) *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use: name, Short: short, Example: example, Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error { return askCA(c, at, view, request, struct{}{}) },
	}
	at.flags(c)
	view.OnceFlags(c)
	return c
}

// askCA shows what is so after a request.
func askCA(c *cobra.Command, at target, view command.View, request string, args any) error {
	return command.Show(c, view, func(context.Context) (v admin.CAStatus, err error) {
		return v, at.askState(c, request, args, &v)
	}, printCA)
}

func printCA(w *command.Page, v admin.CAStatus) error {
	how := map[string]string{
		"built-in":  "the CA key in " + v.KeyFile,
		"command":   "ca_command",
		"operator":  "the operator, where the CA key is (netport-server ca pending, ca sign, ca install)",
		"elsewhere": "nobody here: certificates are signed elsewhere",
	}[v.Mode]
	say := func(label, format string, args ...any) {
		w.Line(fmt.Sprintf("%-13s ", label), fmt.Sprintf(format, args...))
	}
	say("issued by", "%s", how)
	if v.Issuer != "" {
		say("", "%s, key %s, until %s", v.Issuer, keyText(v.Issuing)[:16], v.IssuerEnds.Format(time.DateOnly))
	}
	say("certificates", "last %s", v.Life)
	if n := len(v.Behind); n > 0 {
		say("behind", "%d have certificates of another authority: %s", n, someOf(v.Behind))
	}
	fmt.Fprintln(w)
	if len(v.Pending) > 0 {
		var rows [][]string
		for _, p := range v.Pending {
			rows = append(rows, []string{string(p.Role) + " " + p.Name, keyText(p.Key), p.Since.Local().Format(time.DateTime)})
		}
		if err := w.Table(command.Columns{"WAITS FOR ITS CERTIFICATE", "KEY", "SINCE"}, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	var rows [][]string
	for _, a := range v.Authorities {
		state := "trusted"
		if a.Issuing {
			state = "issues"
		}
		if time.Now().After(a.NotAfter) {
			state = "ended"
		}
		rows = append(rows, []string{a.Name, keyText(a.Key)[:16], state, strconv.Itoa(a.Portals), strconv.Itoa(a.Relays), strconv.Itoa(a.Admins), a.NotAfter.Format(time.DateOnly)})
	}
	return w.Table(command.Columns{"AUTHORITY", "KEY", "STATE", "PORTALS", "RELAYS", "ADMINS", "UNTIL"}, rows)
}

// someOf lists a few.
func someOf(list []string) string {
	const few = 5
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:few], ", ") + fmt.Sprintf(" and %d more", len(list)-few)
}

func newCADrop() *cobra.Command {
	var at target
	var view command.View
	var r admin.CADropRequest
	c := &cobra.Command{
		Use:   "drop KEY",
		Short: "Let an authority count no more",
		Long: `Let an authority count no more.

KEY is what "ca status" shows, or its first 8 digits or more. Nothing that runs is cut.
It is refused while portals or relays have certificates of this authority, unless
--force is given: they have to be invited anew then. Its key file can be destroyed
afterwards.`,
		Example: "  netport-server ca drop 3f9a0c1d",
		Args:    command.Args("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Key = args[0]
			return askCA(c, at, view, admin.CommandCADrop, r)
		},
	}
	at.flags(c)
	view.OnceFlags(c)
	c.Flags().BoolVar(&r.Force, "force", false, "although certificates count that it signed")
	return c
}

func newCARequest() *cobra.Command {
	var at target
	c := &cobra.Command{
		Use:     "request",
		Short:   "Make the key of an intermediate here, and print the request for its certificate",
		Example: "  netport-server ca request > request.pem",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			var made admin.CARequested
			if err := at.askState(c, admin.CommandCARequest, struct{}{}, &made); err != nil {
				return err
			}
			fmt.Fprint(c.OutOrStdout(), made.Request)
			fmt.Fprintf(c.ErrOrStderr(), "Its key is in %s. Have the request signed where the root is (netport-server ca sign), then: netport-server ca install CHAIN\n", made.KeyFile)
			return nil
		},
	}
	at.flags(c)
	return c
}

func newCAInstall() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:   "install [FILE]",
		Short: "Take what was signed elsewhere: certificates that were waited for, or an intermediate",
		Long: `Take what "ca sign" has signed elsewhere, from a file or from standard input.

Certificates are given to who waits for them: at once to those that are connected, to
the others when they come back. The chain of an intermediate ("ca request"), with its root
last, has that intermediate issue from now on.`,
		Example: "  netport-server ca install < certificates\n  netport-server ca install chain.pem",
		Args:    command.OptionalArgs("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput(c, append(args, "-")[0])
			if err != nil {
				return err
			}
			if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
				return askCA(c, at, view, admin.CommandCAInstall, admin.CAInstallRequest{Chain: string(b)})
			}
			var signed strict.Certificates
			if err := readJSON(bytes.NewReader(b), "certificates", &signed); err != nil {
				return err
			}
			return installCertificates(c, at, view, signed)
		},
	}
	at.flags(c)
	view.OnceFlags(c)
	return c
}

func newCATrust() *cobra.Command {
	var at target
	var view command.View
	c := &cobra.Command{
		Use:     "trust FILE",
		Short:   "Let the authorities in a file (PEM) count too, which issue elsewhere",
		Example: "  netport-server ca trust spire-bundle.pem",
		Args:    command.Args("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readInput(c, args[0])
			if err != nil {
				return err
			}
			return askCA(c, at, view, admin.CommandCATrust, admin.CATrustRequest{Certificates: string(b)})
		},
	}
	at.flags(c)
	view.OnceFlags(c)
	return c
}

// readInput reads a file, or standard input for "-".
func readInput(c *cobra.Command, file string) ([]byte, error) {
	if file != "-" {
		return identity.ReadFileLimit(file, strict.MaxSigned)
	}
	b, err := io.ReadAll(io.LimitReader(c.InOrStdin(), strict.MaxSigned))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read standard input: %w", err)
	case len(bytes.TrimSpace(b)) == 0:
		return nil, fmt.Errorf("read standard input: %w", strict.ErrNothing)
	}
	return b, nil
}

func newCANew() *cobra.Command {
	var domain, out, passphrase string
	c := &cobra.Command{
		Use:     "new --domain DOMAIN --out DIR",
		Short:   "Make a root: ca.pem and ca.key in DIR, for a machine without a network",
		Example: "  netport-server ca new --domain example.org --out root --passphrase-file passphrase",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if domain == "" || out == "" {
				return command.Usagef("--domain and --out are needed; see \"%s --help\"", c.CommandPath())
			}
			authority, err := ca.New(domain, time.Now)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return fmt.Errorf("make folder %s: %w", out, cause(err))
			}
			if err := ca.SaveKey(filepath.Join(out, "ca.key"), authority.Key(), passphrase); err != nil {
				return err
			}
			if err := identity.CreateFile(filepath.Join(out, "ca.pem"), identity.EncodeCertificates(authority.Certificate), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Made the root of %s in %s: keep ca.key where no network reaches it.\n", domain, out)
			return nil
		},
	}
	onServerOnly(c, "it asks no server")
	c.Flags().StringVar(&domain, "domain", "", "the domain of all names")
	c.Flags().StringVar(&out, "out", "", "the folder for the files")
	passphraseFlag(c, &passphrase)
	return c
}

func passphraseFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "passphrase-file", "", "a `FILE` of one line with which the key is encrypted")
}
