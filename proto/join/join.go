// Package join is the command by which a portal, a relay or an admin becomes one: it reads
// a join token, makes the key on the device, enrols, and writes what "run" needs.
//
// It may be interrupted at any moment and given again, with the same token: what
// is there is used, and the configuration, which says that all of it is there, is
// written last.
package join

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/clock"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/enrol"
	"github.com/netport/netport/proto/folder"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/proxy"
)

// The files beside the configuration, as it names them.
const (
	keyFile  = "key.pem"
	certFile = "cert.pem"
	caFile   = "ca.pem"
	state    = "state"
)

// Command returns the join command of the program of a role. keys makes its key; config
// makes its configuration, and file is where that is written if --config names no other.
func Command(role identity.Role, file string, keys identity.Keys, config func(reach Reach, policyKey string) []byte) *cobra.Command {
	packaged := file
	w := wordsOf(role, file)
	c := &cobra.Command{
		Use:   "join [--token FILE] < TOKEN",
		Short: w.does + ", with a token of the server",
		Long: fmt.Sprintf(`%[1]s, with a token of the server ("netport-server invite %[2]s NAME").

The token is read from standard input or from a file, never from the command line,
which every process of a machine can read. The key is made here and stays here. The
files are written beside the configuration: key.pem, cert.pem, ca.pem and the folder
state. Where an operator has to approve, the command shows the fingerprint of the
key, for comparison, and waits. It may be interrupted and given again.

The token says which policy key is trusted from then on. Whoever has taken the server
over makes tokens that say his own: --policy-key takes none but yours.

%[3]s`, w.does, role, w.more),
		Example: fmt.Sprintf("  %[1]s join < token\n  %[1]s join --config ./config.toml --token ./token", w.program),
		Args:    command.Args(),
	}
	c.Flags().StringVar(&file, "config", file, fmt.Sprintf("the %s's configuration `FILE` that is to be", role))
	policyKey := c.Flags().String("policy-key", "", "refuse a token for another policy key than this, `ed25519:...` as \"netport-server policy sign\" prints it")
	tokenFile := c.Flags().String("token", "", "read the token from a `FILE` that only its owner can read")
	var reach Reach
	c.Flags().StringVar(&reach.Proxy, "proxy", "", "go through a proxy, now and later: its `URL` (http, https or socks5) without a password, or \"environment\" for that of HTTPS_PROXY or ALL_PROXY")
	c.Flags().StringVar(&reach.PasswordFile, "proxy-password-file", "", "the password of the proxy's user: the first line of a `FILE` that only its owner can read")
	c.RunE = func(c *cobra.Command, _ []string) error {
		through, err := reach.settings()
		if err != nil {
			return err
		}
		token, err := readToken(*tokenFile, c.InOrStdin(), c.ErrOrStderr())
		if err != nil {
			return err
		}
		if token.Role != role {
			return fmt.Errorf("the token is for %s: give it to %s join", withArticle(token.Role), wordsOf(token.Role, "").program)
		}
		if err := checkPolicyKey(token, *policyKey); err != nil {
			return err
		}
		j := joiner{program: w.program, role: role, config: file, packaged: packaged, folder: filepath.Dir(file), keys: keys, text: config, reach: reach, proxy: through, out: c.OutOrStdout(), notes: c.ErrOrStderr()}
		return j.join(c.Context(), token)
	}
	return c
}

// settings reads the flags about a proxy. The file is named from anywhere from then on.
func (r *Reach) settings() (*proxy.Settings, error) {
	if proxy.HasPassword(r.Proxy) {
		return nil, command.Usagef("--proxy has a password, which every process of this machine can read now: change it, and name a file with --proxy-password-file")
	}
	if r.PasswordFile != "" {
		file, err := filepath.Abs(r.PasswordFile)
		if err != nil {
			return nil, err
		}
		r.PasswordFile = file
	}
	through, err := proxy.Load(r.Proxy, r.PasswordFile)
	if err != nil {
		return nil, command.Usagef("--proxy: %w", err)
	}
	return through, nil
}

// words are what the command says of a role.
type words struct {
	program    string
	does, more string
}

func wordsOf(role identity.Role, file string) words {
	if role == identity.Admin {
		return words{"netport-server", "Make who works here an admin of a server", `Every command then works from here with --admin FILE, the configuration that is
written; without FILE that is ` + file + `.`}
	}
	more := `Root makes the files for the owner of the configuration's folder: a package has made
` + filepath.Dir(file) + ` for the user of its service.`
	if hasServices {
		more = `The files are for the user who gives the command; "service install" has the portal run
as another.`
	}
	return words{"netport-" + string(role), "Make this machine a " + string(role), more}
}

func withArticle(role identity.Role) string {
	if role == identity.Admin {
		return "an admin"
	}
	return "a " + string(role)
}

// checkPolicyKey compares a token with the policy key that its holder wants; "" is any.
func checkPolicyKey(token invite.Token, want string) error {
	if want == "" {
		return nil
	}
	key, err := grant.ParseKey(want)
	if err != nil {
		return command.Usagef("--policy-key: %w", err)
	}
	if !key.Equal(token.Policy) {
		return fmt.Errorf("the token is for the policy key %s, and yours is %s: whoever made the token does not work with your key", grant.FormatKey(token.Policy), want)
	}
	return nil
}

func readToken(file string, stdin io.Reader, notes io.Writer) (invite.Token, error) {
	if file != "" {
		b, err := identity.ReadSecret(file)
		if err != nil {
			return invite.Token{}, err
		}
		return invite.Parse(b)
	}
	if f, ok := stdin.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			end := "Ctrl-D"
			if runtime.GOOS == "windows" {
				end = "Ctrl-Z and Enter again"
			}
			fmt.Fprintf(notes, "Paste the join token, then press Enter and %s:\n", end)
		}
	}
	return invite.Read(stdin)
}

// joiner is one run of the command.
type joiner struct {
	program        string
	role           identity.Role
	config, folder string
	packaged       string // where the service of a package has its configuration
	keys           identity.Keys
	text           func(reach Reach, policyKey string) []byte
	reach          Reach // without servers
	proxy          *proxy.Settings
	out, notes     io.Writer
}

func (j *joiner) in(name string) string { return filepath.Join(j.folder, name) }

func (j *joiner) join(ctx context.Context, token invite.Token) error {
	root, err := folder.AsOwner(j.folder) // what is made is the daemon's
	if err != nil {
		return err
	}
	defer root()
	done, err := j.joined(token)
	if err != nil || done {
		return err
	}
	for _, dir := range []string{j.folder, j.in(state)} {
		if err := folder.Make(dir); err != nil {
			return fmt.Errorf("make folder %s: %w", dir, err)
		}
	}
	key, err := j.key()
	if err != nil {
		return err
	}
	now, err := clock.Open(j.in(filepath.Join(state, keeper.ClockFile)), clock.Built(), nil)
	if err != nil {
		fmt.Fprintf(j.notes, "%s: %v; going on without it\n", j.program, err)
	}
	client := enrol.Client{
		Software: j.program + "/" + command.Version, Now: now.Now, Proxy: j.proxy, Waiting: j.waiting,
		Failed: func(_ string, err error) { fmt.Fprintf(j.notes, "%s: %s\n", j.program, command.Clean(err.Error())) },
	}
	r, err := client.Join(ctx, token, key)
	if err != nil {
		return fmt.Errorf("join as %s %s: %w", token.Role, token.Name, err)
	}
	if err := j.write(r); err != nil {
		return fmt.Errorf("%w; give the command again with the same token", err)
	}
	fmt.Fprintf(j.out, "Joined %s as the %s %s; the certificate lasts until %s.\n%s",
		r.ID.Domain, r.ID.Role, r.ID.Name, r.Chain[0].NotAfter.UTC().Format("2006-01-02 15:04 UTC"), j.next())
	return nil
}

// joined reports whether an earlier run came to its end.
func (j *joiner) joined(token invite.Token) (bool, error) {
	if _, err := os.Lstat(j.config); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look for %s: %w", j.config, err)
	}
	certs, err := identity.LoadCertificates(j.in(certFile))
	if err == nil {
		id, err := identity.FromCertificate(certs[0])
		if err == nil && id.Role == token.Role && id.Name == token.Name {
			fmt.Fprintf(j.out, "This machine has joined %s as the %s %s already.\n%s", id.Domain, id.Role, id.Name, j.next())
			return true, nil
		}
	}
	return false, fmt.Errorf("%s is there already and is not of the %s %s: move its folder away, or name another with --config", j.config, token.Role, token.Name)
}

// hasServices says whether the program itself has the system run it ("service install").
const hasServices = runtime.GOOS == "windows" || runtime.GOOS == "darwin"

// word is a path as one word of a command line.
func word(path string) string {
	if strings.Contains(path, " ") {
		return `"` + path + `"`
	}
	return path
}

// next says how to go on.
func (j *joiner) next() string {
	if j.role == identity.Admin {
		return fmt.Sprintf("Next:\n  %s status --admin %s\n", j.program, j.config)
	}
	s := fmt.Sprintf("Next:\n  %s run --config %s\n", j.program, word(j.config))
	switch {
	case hasServices:
		s += fmt.Sprintf("or, as a service of the system:\n  %s service install --config %s\n", j.program, word(j.config))
	case j.config == j.packaged:
		s += fmt.Sprintf("or, where a package has brought the service:\n  systemctl enable --now %s\n", j.program)
	}
	return s
}

// key returns the key of an earlier run, or a new one that is on disk.
func (j *joiner) key() (crypto.Signer, error) {
	file := j.in(keyFile)
	if _, err := os.Lstat(file); err == nil {
		return j.keys.Load(file)
	}
	return j.keys.Make(file, "")
}

func (j *joiner) waiting(key identity.KeyHash) {
	fmt.Fprintf(j.notes, "Waiting for an operator (\"netport-server enrolments\", or \"ca sign\" where the CA key is). The fingerprint of this machine's key is\n  %x\n", key[:])
}

func (j *joiner) write(r enrol.Result) error {
	if !r.Told.IsZero() {
		if err := clock.Save(j.in(filepath.Join(state, keeper.ClockFile)), r.Told); err != nil {
			return err
		}
	}
	if err := keeper.SaveAuthorities(j.in(state), r.Authorities); err != nil {
		return err
	}
	if err := identity.ReplaceFile(j.in(caFile), identity.EncodeCertificates(r.Roots...), 0o600); err != nil {
		return err
	}
	if err := identity.ReplaceFile(j.in(certFile), identity.EncodeCertificates(r.Chain...), 0o600); err != nil {
		return err
	}
	j.reach.Servers = r.Servers
	return identity.ReplaceFile(j.config, j.text(j.reach, grant.FormatKey(r.Policy[0])), 0o600)
}
