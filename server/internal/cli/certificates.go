package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/strict"
)

func newCAPending() *cobra.Command {
	var at target
	c := &cobra.Command{
		Use:   "pending",
		Short: "Print the certificates that wait for a CA key that is elsewhere, for \"ca sign\"",
		Long: `Print the requests of all who wait for a certificate, for "ca sign" where the CA key
is: who joins, and who renews before the old one ends. "ca status" shows them to people.`,
		Example: "  netport-server ca pending > requests",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			var q strict.CertificateRequests
			if err := at.askState(c, admin.CommandCAPending, struct{}{}, &q); err != nil {
				return err
			}
			return command.JSON(c.OutOrStdout(), q)
		},
	}
	at.flags(c)
	return c
}

func installCertificates(c *cobra.Command, at target, view command.View, signed strict.Certificates) error {
	var v admin.Installed
	if err := at.askState(c, admin.CommandCASigned, signed, &v); err != nil {
		return err
	}
	if view.JSON() {
		return command.JSON(c.OutOrStdout(), v)
	}
	for _, text := range v.Refused {
		fmt.Fprintln(c.ErrOrStderr(), "refused:", command.Clean(text))
	}
	if v.Installed+v.Waiting > 0 {
		fmt.Fprintf(c.OutOrStdout(), "certificates installed: %d; still waiting: %d\n", v.Installed, v.Waiting)
	}
	if len(v.Refused) > 0 {
		return command.ErrShown
	}
	return nil
}

// signFlags are those of "ca sign".
type signFlags struct {
	ca, key, passphrase, known, life, out string
	accept                                []string
}

func newCASign() *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use:   "sign --ca FILE --key FILE [--known FILE] < REQUESTS",
		Short: "Sign, where the CA key is, what waits at a server",
		Long: `Sign, where the CA key is, what waits at a server. No server and no state is needed.

With --known it reads what "ca pending" prints and writes certificates for "ca install":
for the names and keys in that file, which "policy sign" shares, and for those that
you accept. It says what it signed and what not. A new name or key is refused until you
have compared the key with what the device shows while it joins ("netport-portal status"
afterwards), and accepted it by the option that is printed.

Without --known it reads the request of an intermediate ("ca request") and writes its
chain, the root last.`,
		Example: `  netport-server ca sign --ca op/ca.pem --key op/ca.key --known op/known.toml < requests > certificates
  netport-server ca sign --ca root/ca.pem --key root/ca.key < request.pem > chain.pem`,
		Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.ca == "" || f.key == "" {
				return command.Usagef("--ca and --key are needed; see \"%s --help\"", c.CommandPath())
			}
			text, err := readInput(c, "-")
			if err != nil {
				return err
			}
			pending := bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
			switch {
			case pending && f.known == "":
				return command.Usagef("these are the certificates that wait at a server: name the file of the keys that are known (--known)")
			case pending:
				return f.certificates(c, text)
			case f.known != "" || len(f.accept) > 0:
				return command.Usagef("this is the request of an intermediate, which --known and --accept say nothing about")
			}
			return f.intermediate(c, text)
		},
	}
	onServerOnly(c, "it signs with a key that is here: pipe what \"ca pending --server\" prints into it")
	c.Flags().StringVar(&f.ca, "ca", "", "the CA's certificate, and those above it if it is an intermediate")
	c.Flags().StringVar(&f.key, "key", "", "the CA's key")
	c.Flags().StringVar(&f.known, "known", "", "the `FILE` of the names and keys that are known")
	c.Flags().StringArrayVar(&f.accept, "accept", nil, "take this key for a portal: `NAME=KEY`, all 64 digits; relay/NAME=KEY for a relay (may be repeated)")
	c.Flags().StringVar(&f.life, "life", "", "how long what is signed lasts (30d; an intermediate 2y)")
	c.Flags().StringVar(&f.out, "out", "", "a new file for what was signed; standard output without it")
	passphraseFlag(c, &f.passphrase)
	return c
}

// lifeOr returns the life that was given, or another one.
func (f *signFlags) lifeOr(other string) (time.Duration, error) {
	if f.life != "" {
		other = f.life
	}
	life, err := ca.ParseLife(other)
	if err != nil {
		return 0, command.Usagef("--life: %w", err)
	}
	return life, nil
}

func (f *signFlags) write(c *cobra.Command, b []byte) error {
	if f.out != "" {
		return identity.CreateFile(f.out, b, 0o644)
	}
	_, err := c.OutOrStdout().Write(b)
	return err
}

func (f *signFlags) intermediate(c *cobra.Command, text []byte) error {
	life, err := f.lifeOr("2y")
	if err != nil {
		return err
	}
	request, err := ca.ParseRequest(text)
	if err != nil {
		return err
	}
	root, err := ca.Load("", f.ca, f.key, f.passphrase, time.Now)
	if err != nil {
		return err
	}
	cert, err := root.Sign(request, life)
	if err != nil {
		return err
	}
	return f.write(c, identity.EncodeCertificates(cert, root.Certificate))
}

func (f *signFlags) certificates(c *cobra.Command, text []byte) error {
	j := strict.CertificateJob{}
	var err error
	if j.Life, err = f.lifeOr(conffile.FormatDuration(ca.DefaultLife)); err != nil {
		return err
	}
	if err := readJSON(bytes.NewReader(text), "requests", &j.Requests); err != nil {
		return err
	}
	if j.Known, err = strict.LoadKnown(f.known); err != nil {
		return err
	}
	a, err := accepted(f.accept, nil)
	if err != nil {
		return err
	}
	j.Accepted = a.Portals
	if j.Authority, err = ca.Load(j.Requests.Domain, f.ca, f.key, f.passphrase, time.Now); err != nil {
		return err
	}
	r, err := j.Sign(c.Context())
	if err != nil {
		return fmt.Errorf("sign certificates: %w", err)
	}
	if err := r.Known.Save(f.known); err != nil {
		return err
	}
	b, err := json.Marshal(r.Signed)
	if err != nil {
		return err
	}
	if err := f.write(c, append(b, '\n')); err != nil {
		return err
	}
	return showCertificates(c.ErrOrStderr(), r)
}

// showCertificates says what was signed and what not.
func showCertificates(w io.Writer, r strict.CertificateResult) error {
	for _, m := range r.Made {
		fmt.Fprintf(w, "signed   %s %s, key %s, until %s\n", m.ID.Role, m.ID.Name, m.Key, m.NotAfter.Local().Format(time.DateTime))
	}
	for _, s := range r.Strangers {
		what := "is not known here"
		if s.Other {
			what = "is not the one that is known here"
		}
		fmt.Fprintf(w, "refused  %s: its key %s: %s\n", s.Portal, what, s.Flag())
	}
	for _, err := range r.Refused {
		fmt.Fprintln(w, "refused ", command.Clean(err.Error()))
	}
	if len(r.Strangers) > 0 {
		fmt.Fprintln(w, "Compare each key with what the device itself shows, then accept it; the others have theirs.")
	}
	if len(r.Strangers)+len(r.Refused) > 0 {
		return command.ErrShown
	}
	return nil
}
