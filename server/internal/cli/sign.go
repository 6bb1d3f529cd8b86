package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/strict"
)

func newPolicyRequest() *cobra.Command {
	var at target
	c := &cobra.Command{
		Use:   "request",
		Short: "Say what is to be signed where the policy key is (strict mode)",
		Long: `Print who is enrolled under which keys and which authorities count, for "policy
sign" where the policy key is.`,
		Example: "  netport-server policy request > request",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			var q strict.Request
			if err := at.askState(c, admin.CommandSignAsk, struct{}{}, &q); err != nil {
				return err
			}
			return command.JSON(c.OutOrStdout(), q)
		},
	}
	at.flags(c)
	return c
}

func newPolicySign() *cobra.Command {
	var keyFile, policyFile, knownFile string
	var accept, authorities, allow []string
	c := &cobra.Command{
		Use:   "sign --key FILE --policy FILE --known FILE",
		Short: "Sign a policy for a server that has no policy key (strict mode)",
		Long: `Read a server's request from standard input, compile the policy for the portals in
it, sign what the policy says and nothing else, and print it for "policy install".

The keys of the request are compared with those in the file of what is known. A
name that is new, or that comes with another key, is refused until you have
compared the key with the portal's own ("netport-portal status" shows it) and
accepted it: by the option that is printed, or by a line in that file. A portal's next
key (renew_key) and what was allowed on request ("allow") are left out until you say so:
by --accept and --allow.`,
		Example: `  netport-server policy sign --key policy.key --policy policy.toml --known known.toml < request > signed
  netport-server policy sign --key policy.key --policy policy.toml --known known.toml --allow plc-web < request > signed`,
		Args: command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, f := range []string{"key", "policy", "known"} {
				if !c.Flags().Changed(f) {
					return command.Usagef("--%s is missing; see \"netport-server policy sign --help\"", f)
				}
			}
			job, err := readJob(c.InOrStdin(), keyFile, policyFile, knownFile)
			if err != nil {
				return err
			}
			if job.Accepted, err = accepted(accept, authorities); err != nil {
				return err
			}
			for _, text := range allow {
				forward, only, _ := strings.Cut(text, "=")
				job.Accepted.Openings = append(job.Accepted.Openings, policy.OpeningKey{Forward: forward, Only: only})
			}
			r, err := job.Sign(time.Now())
			if err != nil {
				return fmt.Errorf("sign policy %s: %w", policyFile, err)
			}
			if !showSigning(c.ErrOrStderr(), r) {
				return command.ErrShown
			}
			if err := r.Known.Save(knownFile); err != nil { // first: no version is signed twice
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "signed version %d with the policy key %s: %s for %s\n", r.Known.Version, job.Request.PolicyKey, command.Count(r.Grants, "grant"), command.Count(len(r.Known.Portals), "portal"))
			return json.NewEncoder(c.OutOrStdout()).Encode(r.Signed)
		},
	}
	onServerOnly(c, "it signs with a key that no server has: pipe what \"policy request --server\" prints into it")
	c.Flags().StringVar(&keyFile, "key", "", "the policy key")
	c.Flags().StringVar(&policyFile, "policy", "", "the policy")
	c.Flags().StringVar(&knownFile, "known", "", "the file of the keys that are known; it is made the first time")
	c.Flags().StringArrayVar(&accept, "accept", nil, "take this key for a portal: `NAME=KEY`, all 64 digits (may be repeated)")
	c.Flags().StringArrayVar(&authorities, "accept-ca", nil, "take this `KEY` for an authority (may be repeated)")
	c.Flags().StringArrayVar(&allow, "allow", nil, "open what was allowed of a `FORWARD` on request: for all its portals, or as FORWARD=PORTAL for one (may be repeated)")
	return c
}

func readJob(in io.Reader, keyFile, policyFile, knownFile string) (job strict.Job, err error) {
	job.File = policyFile
	if job.Key, err = admin.LoadSigner(keyFile); err != nil {
		return job, err
	}
	if job.Source, err = policy.ReadFile(policyFile); err != nil {
		return job, err
	}
	if job.Known, err = strict.LoadKnown(knownFile); err != nil {
		return job, err
	}
	return job, readJSON(in, "the request", &job.Request)
}

// readJSON reads one JSON value of bounded size.
func readJSON(in io.Reader, what string, v any) error {
	b, err := io.ReadAll(io.LimitReader(in, strict.MaxSigned+1024))
	switch {
	case err != nil:
		return fmt.Errorf("read %s from standard input: %w", what, err)
	case len(bytes.TrimSpace(b)) == 0:
		return fmt.Errorf("read %s from standard input: nothing came: did the command before it refuse?", what)
	case len(b) == strict.MaxSigned+1024:
		return fmt.Errorf("read %s from standard input: it is larger than %d bytes", what, strict.MaxSigned)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s from standard input: it is not what netport-server prints: %w", what, err)
	}
	return nil
}

func accepted(portals, authorities []string) (a strict.Accepted, err error) {
	a.Portals = make(map[string][]identity.KeyHash)
	for _, text := range portals {
		name, digits, _ := strings.Cut(text, "=")
		var key identity.KeyHash
		if err := key.UnmarshalText([]byte(digits)); err != nil {
			return a, command.Usagef("--accept %s: write NAME=KEY: %w", text, err)
		}
		a.Portals[name] = append(a.Portals[name], key)
	}
	for _, digits := range authorities {
		var key identity.KeyHash
		if err := key.UnmarshalText([]byte(digits)); err != nil {
			return a, command.Usagef("--accept-ca: %w", err)
		}
		a.Authorities = append(a.Authorities, key)
	}
	return a, nil
}

// showSigning shows what is to be known of a signing, and reports whether there is one.
func showSigning(w io.Writer, r strict.Result) bool {
	for _, warning := range r.Warnings {
		fmt.Fprintln(w, "warning:", command.Clean(warning))
	}
	for _, f := range r.Failed {
		fmt.Fprintln(w, f)
	}
	if len(r.Failed) > 0 {
		fmt.Fprintf(w, "not signed: of the policy's tests, %d failed\n", len(r.Failed))
		return false
	}
	for _, s := range r.Strangers {
		what := "is not known here"
		if s.Other {
			what = "is not the one that is known here"
		}
		who := "portal " + s.Portal
		if s.Portal == "" {
			who = "an authority"
		}
		fmt.Fprintf(w, "%s: its key %s: %s\n", who, what, s.Flag())
	}
	if len(r.Strangers) > 0 {
		fmt.Fprintf(w, "not signed: compare %s with what the portals themselves show (netport-portal status), then accept what is right\n", command.Count(len(r.Strangers), "key"))
		return false
	}
	for _, s := range r.Later {
		fmt.Fprintf(w, "left out: the next key of portal %s, until you accept it: %s\n", s.Portal, s.Flag())
	}
	for _, o := range r.Closed {
		fmt.Fprintf(w, "left out: %s asks for %s: --allow %s\n", command.Clean(o.By), openingText(o), command.Clean(o.Key().String()))
	}
	for _, o := range r.Opened {
		fmt.Fprintf(w, "opens %s, as %s asks\n", openingText(o), command.Clean(o.By))
	}
	return true
}

func openingText(o policy.Opening) string {
	return fmt.Sprintf("%s for %s until %s", command.Clean(o.Forward), command.Clean(whom(o)), o.Until.Local().Format(time.DateTime+" MST"))
}

func newPolicyInstall() *cobra.Command {
	var at target
	var asJSON bool
	var r admin.InstallRequest
	c := &cobra.Command{
		Use:     "install",
		Short:   "Put in force what was signed where the policy key is (strict mode)",
		Example: "  netport-server policy install < signed",
		Args:    command.Args(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := readJSON(c.InOrStdin(), "what was signed", &r.Signed); err != nil {
				return err
			}
			var result admin.PolicyResult
			if err := at.askState(c, admin.CommandInstall, r, &result); err != nil {
				return err
			}
			if asJSON {
				return command.JSON(c.OutOrStdout(), result)
			}
			for _, w := range result.Warnings {
				fmt.Fprintln(c.ErrOrStderr(), "warning:", command.Clean(w))
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), inForce(result))
			return err
		},
	}
	at.flags(c)
	jsonFlag(c, &asJSON)
	anewFlag(c, &r.Anew)
	return c
}
