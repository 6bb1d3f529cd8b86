package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/cli"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/daemon"
)

// site is a server that runs, and the laptops of its admins; all are the real program.
type site struct {
	t            *testing.T
	dir, program string
}

// Operators who work from other machines. All of it is the program as it is shipped: with
// the race detector each of hundreds of processes needs a second to start.
func TestAdmins(t *testing.T) {
	program := filepath.Join(t.TempDir(), "netport-server")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v: %s", err, out)
	}
	for name, story := range map[string]func(*testing.T, string){
		"the same commands": commandsAreTheSameFromAfar, "audited by name": changesAreAuditedByName,
		"the wrong server": wrongServerIsRefused, "renewed": commandsRenewTheAdmin, "no CA key on the server": strictServersAdmin,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, program)
		})
	}
}

// newSite starts a server with the admins ann, who may do all, and bo, who is read-only.
func newSite(t *testing.T, program string) *site {
	t.Helper()
	s := newServer(t, program)
	for _, who := range [][]string{{"ann"}, {"bo", "--read-only"}} {
		token := s.must(s.here("", append([]string{"invite", "admin"}, who...)...)).out
		s.must(s.run(token, "join", "--config", s.file(who[0])))
	}
	return s
}

// newServer starts a server, which is made with these options of init.
func newServer(t *testing.T, program string, options ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "np") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t, dir, program}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.must(s.run("", append([]string{"init", "--dir", s.in("server"), "--domain", "example.org", "--address", address}, options...)...))
	c := exec.Command(s.program, "run", "--config", s.config())
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.String())
		}
	})
	cfg, err := config.Load(s.config())
	if err != nil {
		t.Fatal(err)
	}
	var status daemon.Status
	for end := time.Now().Add(20 * time.Second); local.Call(context.Background(), cfg.Socket, daemon.CommandStatus, nil, &status) != nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server does not answer: %s", log.String())
		}
	}
	return s
}

func (s *site) in(name string) string   { return filepath.Join(s.dir, name) }
func (s *site) config() string          { return s.in("server/config.toml") }
func (s *site) file(name string) string { return s.in(name + "/admin.toml") }

// said is what a command has printed, and its exit code.
type said struct {
	out, err string
	code     int
}

func (s *site) run(stdin string, args ...string) said {
	s.t.Helper()
	c := exec.Command(s.program, args...)
	c.Dir = s.dir
	c.Stdin = strings.NewReader(stdin)
	var out, notes bytes.Buffer
	c.Stdout, c.Stderr = &out, &notes
	var ended *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &ended) {
		s.t.Fatal(err)
	}
	return said{out.String(), notes.String(), c.ProcessState.ExitCode()}
}

// here runs a command on the server's own machine, far as an admin.
func (s *site) here(stdin string, args ...string) said {
	s.t.Helper()
	return s.run(stdin, append(args, "--config", s.config())...)
}

func (s *site) far(name, stdin string, args ...string) said {
	s.t.Helper()
	return s.run(stdin, append(args, "--admin", s.file(name))...)
}

func (s *site) must(got said) said {
	s.t.Helper()
	if got.code != 0 {
		s.t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	return got
}

// audited returns the audit records.
func (s *site) audited() (list []audit.Record) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must(s.here("", "audit", "--json", "--last", "500")).out), &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// each are commands in an order in which all say something, every one that asks a server at
// least once. KEY stands for what names the authority of a site.
var each = []struct {
	args, stdin string
	code        int
}{
	{args: "status --wide"},
	{args: "admins --wide"},
	{args: "admins --json"},
	{args: "policy check policy.toml"},
	{args: "policy test policy.toml"},
	{args: "policy check bad.toml", code: 1},
	{args: "policy diff policy.toml --wide"},
	{args: "policy apply policy.toml"},
	{args: "policy show --wide"},
	{args: "invite portal laptop"},
	{args: "invite portal till-%03d --count 3 --approve"},
	{args: "invite relay relay-2 --address 192.0.2.9"},
	{args: "invite admin cy"},
	{args: "enrolments --wide"},
	{args: "enrolments approve 0123456789", code: 1},
	{args: "enrolments reject 0123456789", code: 1},
	{args: "issue portal laptop --out laptop"},
	{args: "issue portal factory --out factory"},
	{args: "issue portal factory --out factory-2", code: 1},
	{args: "issue relay relay-1 --address 192.0.2.7 --out relay"},
	{args: "portals --wide"},
	{args: "relays --wide"},
	{args: "sessions --wide"},
	{args: "explain", code: 2},
	{args: "allow shell --for 2h --by dora"},
	{args: "allow --list --wide"},
	{args: "allow --end shell --by dora"},
	{args: "allow nothing --for 2h --by dora", code: 1},
	{args: "policy request", code: 1},
	{args: "policy install", stdin: "{}", code: 1},
	{args: "ca status --wide"},
	{args: "ca status --json"},
	{args: "ca pending", code: 1},
	{args: "ca request"},
	{args: "ca trust root/ca.pem --wide"},
	{args: "ca install root/ca.pem", code: 1},
	{args: "ca roll --wide"},
	{args: "ca drop 0123456789", code: 1},
	{args: "revoke authority 0123456789", code: 1},
	{args: "revoke portal laptop"},
	{args: "revoke relay relay-1"},
	{args: "revoke relay relay-1", code: 1},
	{args: "revoke admin cy --unknown"},
	{args: "revoke --key 3f9a0c1d3f9a0c1d3f9a0c1d3f9a0c1d3f9a0c1d3f9a0c1d3f9a0c1d3f9a0c1d"},
	{args: "revoke --serial 8a:41", code: 0},
	{args: "audit --last 100 --wide"},
	{args: "audit verify"},
	{args: "audit verify --head 3f9a", code: 2},
}

const remotePolicy = `domain = "example.org"

[[forward]]
name = "web"
from = "laptop tcp://127.0.0.1:8080"
to = "factory tcp://127.0.0.1:80"

[[forward]]
name = "shell"
from = "laptop stdio:"
to = "factory tcp://127.0.0.1:22"
on_request = "8h"

[[test]]
allow = "laptop tcp://127.0.0.1:8080 -> factory tcp://127.0.0.1:80"
`

// What two sites with the same history do not say alike.
var different = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`netport-join-[A-Za-z0-9_-]+`), "TOKEN"},
	{regexp.MustCompile(`(?s)-----BEGIN.*-----END [A-Z ]+-----`), "PEM"},
	{regexp.MustCompile(`ed25519:[A-Za-z0-9+/=]+`), "POLICYKEY"},
	{regexp.MustCompile(`local uid \d+ \([a-z0-9_-]+\)|admin/ann`), "WHO"},
	{regexp.MustCompile(`(CA of example.org, )\S+ [0-9a-f]{4}\b`), "${1}NAME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[A-Z]{1,4})?`), "TIME"},
	{regexp.MustCompile(`\bca-[0-9a-f]{8}\.key`), "KEYFILE"},
	{regexp.MustCompile(`\b[0-9a-f:]{16,}\b`), "HEX"},
	{regexp.MustCompile(`token [0-9a-f]{8}\b`), "token ID"},
	{regexp.MustCompile(` [0-9a-f]{8} `), " ID "},
	{regexp.MustCompile(`up for \d+s`), "up for a while"},
	{regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`), "ADDRESS"},
	{regexp.MustCompile(` +`), " "},
}

func (s *site) alike(got said) said {
	plain := func(text string) string {
		text = strings.ReplaceAll(text, s.dir, "DIR")
		for _, d := range different {
			text = d.pattern.ReplaceAllString(text, d.with)
		}
		return text
	}
	return said{plain(got.out), plain(got.err), got.code}
}

// Every command that asks a server answers an admin as it answers on the server's own
// machine: two sites have the same history, the one from the inside, the other from afar.
func commandsAreTheSameFromAfar(t *testing.T, program string) {
	near, far := newSite(t, program), newSite(t, program)
	for _, s := range []*site{near, far} {
		for name, text := range map[string]string{"policy.toml": remotePolicy, "bad.toml": "nonsense = 1\n"} {
			if err := os.WriteFile(s.in(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.must(s.run("", "ca", "new", "--domain", "example.org", "--out", "root"))
	}
	done := make(map[string]bool)
	for _, c := range each {
		args := strings.Fields(c.args)
		want, got := near.alike(near.here(c.stdin, args...)), far.alike(far.far("ann", c.stdin, args...))
		if want.code != c.code {
			t.Errorf("%s: exit code %d on the server's machine, want %d: %s", c.args, want.code, c.code, want.err)
		}
		if got != want {
			t.Errorf("%s: from afar %d\n%s%s\non the server's machine %d\n%s%s", c.args, got.code, got.out, got.err, want.code, want.out, want.err)
		}
		command, _, err := cli.New(nil).Find(args)
		if err != nil {
			t.Fatal(err)
		}
		done[command.CommandPath()] = true
	}
	pair := "laptop tcp://127.0.0.1:8080 -> factory tcp://127.0.0.1:80"
	if want, got := near.alike(near.here("", "explain", pair)), far.alike(far.far("ann", "", "explain", pair)); got != want || !strings.Contains(got.out, "laptop") {
		t.Errorf("explain: from afar %+v, on the server's machine %+v", got, want)
	}

	// No command was left out, and those for the server's own machine say so.
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, below := range c.Commands() {
			walk(below)
		}
		flag := c.Flags().Lookup("server")
		switch {
		case !c.Runnable() || c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion":
		case flag == nil:
			if !c.HasSubCommands() && c.Name() != "join" {
				t.Errorf("%s: nothing says whether it works from afar", c.CommandPath())
			}
		case flag.Hidden:
			if got := far.run("", append(strings.Fields(c.CommandPath())[1:], "--server", "example.org")...); got.code != 2 || !strings.Contains(got.err, flag.Value.Set("").Error()) {
				t.Errorf("%s --server: exit code %d, %q", c.CommandPath(), got.code, got.err)
			}
		case !done[c.CommandPath()]:
			t.Errorf("%s was not tried from afar", c.CommandPath())
		}
	}
	walk(cli.New(nil))
}

// The audit log names who has made each change, and whose word an admin gives for it.
func changesAreAuditedByName(t *testing.T, program string) {
	s := newSite(t, program)
	if err := os.WriteFile(s.in("policy.toml"), []byte(remotePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(s.here("", "invite", "portal", "one"))
	s.must(s.far("ann", "", "invite", "portal", "two"))
	s.must(s.far("ann", "", "policy", "apply", "policy.toml"))
	s.must(s.far("ann", "", "allow", "shell", "--for", "1h"))
	s.must(s.far("ann", "", "allow", "shell", "--for", "2h", "--by", "dora"))
	s.must(s.far("ann", "", "ca", "roll"))
	s.must(s.far("ann", "", "revoke", "portal", "one", "--unknown"))
	if got := s.here("", "allow", "shell", "--for", "1h"); got.code != 2 || !strings.Contains(got.err, "on whose word") {
		t.Errorf("on the server's machine nobody's word was taken: %+v", got)
	}
	if got := s.far("bo", "", "revoke", "portal", "two"); got.code != 1 || !strings.Contains(got.err, "bo is a read-only admin") {
		t.Errorf("a read-only admin revoked: %+v", got)
	}
	list := s.audited()
	for _, want := range []struct{ event, answer, by, portal, detail string }{
		{"invite", "done", "local uid", "one", "portal"},
		{"invite", "done", "admin/ann", "two", "portal"},
		{"policy", "done", "admin/ann", "", "policy.toml"},
		{"allow", "granted", "admin/ann", "", "by ann:"},
		{"allow", "granted", "admin/ann", "", "by dora:"},
		{"authority", "done", "admin/ann", "", "rolled over"},
		{"revoke", "done", "admin/ann", "one", "portal one"},
		{"command", "refused", "admin/bo", "", "revoke"},
	} {
		if !slices.ContainsFunc(list, func(r audit.Record) bool {
			return r.Event == want.event && r.Answer == want.answer && strings.HasPrefix(r.By, want.by) && r.Portal == want.portal && strings.Contains(r.Detail, want.detail)
		}) {
			t.Errorf("no line %+v in %+v", want, list)
		}
	}
	if got := s.must(s.far("bo", "", "audit")); !strings.Contains(got.out, "; by admin/ann") {
		t.Errorf("audit shows nobody: %s", got.out)
	}
}

// A server of the same domain under another CA is not believed, and hears nothing; nor is
// one without an answer waited for where another is there.
func wrongServerIsRefused(t *testing.T, program string) {
	s, other := newSite(t, program), newSite(t, program)
	cfg, err := config.Load(other.config())
	if err != nil {
		t.Fatal(err)
	}
	got := s.far("ann", "", "invite", "portal", "x", "--server", cfg.Address)
	if got.code != 1 || !strings.Contains(got.err, "ask the server "+cfg.Address+": ") || !strings.Contains(got.err, "verify the peer's certificate") {
		t.Errorf("another's server: %+v", got)
	}
	if list := other.audited(); slices.ContainsFunc(list, func(r audit.Record) bool { return r.Portal == "x" }) {
		t.Errorf("it was asked: %+v", list)
	}
	if got := s.far("ann", "", "status", "--server", "no port"); got.code != 2 {
		t.Errorf("a server that is none: %+v", got)
	}
	if got := s.run("", "status", "--admin", s.file("ann"), "--config", s.config()); got.code != 2 {
		t.Errorf("on this machine and on another at once: %+v", got)
	}
	if got := s.run("", "status", "--admin", s.in("nobody/admin.toml")); got.code != 1 || !strings.Contains(got.err, "nobody/admin.toml") {
		t.Errorf("nobody: %+v", got)
	}
}

const day = 24 * time.Hour

// leaf returns when ann's certificate ends.
func (s *site) leaf() time.Time {
	s.t.Helper()
	certs, err := identity.LoadCertificates(s.in("ann/cert.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	return certs[0].NotAfter
}

// age gives ann her certificate as if it had been made so long ago, by the CA of a folder.
func (s *site) age(folder string, ago, life time.Duration) {
	s.t.Helper()
	file := s.in("ann/cert.pem")
	certs, err := identity.LoadCertificates(file)
	if err != nil {
		s.t.Fatal(err)
	}
	authority, err := ca.Load("example.org", s.in(folder+"/ca.pem"), s.in(folder+"/ca.key"), "", time.Now)
	if err != nil {
		s.t.Fatal(err)
	}
	aged := *certs[0]
	aged.NotBefore = time.Now().Add(-ago)
	aged.NotAfter = aged.NotBefore.Add(life)
	der, err := x509.CreateCertificate(rand.Reader, &aged, authority.Certificate, aged.PublicKey, authority.Key())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := identity.ReplaceFile(file, identity.EncodeCertificates(&x509.Certificate{Raw: der}), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// A command renews the certificate of its admin: in time, after its end, and soon when
// another authority issues. It may do so with nothing but what is on the laptop.
func commandsRenewTheAdmin(t *testing.T, program string) {
	s := newSite(t, program)
	for what, tt := range map[string]struct {
		ago, life time.Duration
		renew     bool
	}{"in time": {25 * day, 30 * day, true}, "too early": {10 * day, 30 * day, false}, "after its end": {50 * time.Minute, 10 * time.Minute, true}} {
		s.age("server", tt.ago, tt.life)
		before := s.leaf()
		s.must(s.far("ann", "", "status"))
		if renewed := s.leaf().After(before); renewed != tt.renew {
			t.Errorf("%s: renewed %t, want %t", what, renewed, tt.renew)
		}
	}
	s.age("server", day, 30*day)
	before := s.leaf()
	s.must(s.here("", "ca", "roll"))
	s.must(s.far("ann", "", "status")) // the old one vouches for the new one
	if !s.leaf().After(before) {
		t.Error("not renewed under the new authority")
	}
	if got := s.must(s.here("", "ca", "status", "--json")).out; strings.Contains(got, "admin ann") {
		t.Errorf("still behind: %s", got)
	}
	before = s.leaf()
	s.must(s.far("ann", "", "status"))
	if !s.leaf().Equal(before) {
		t.Error("renewed again for nothing")
	}

	s.must(s.here("", "revoke", "admin", "ann"))
	if got := s.far("ann", "", "status"); got.code != 1 || !strings.Contains(got.err, "it was revoked") {
		t.Errorf("after being revoked: %+v", got)
	}
}

// Where the CA key is not on the server, an admin joins and is renewed when an operator has
// signed, which he can do from where he works: the two keys never leave it. He signs nothing
// on the server.
func strictServersAdmin(t *testing.T, program string) {
	s := newServer(t, program, "--operator", "op")
	sign := func(requests string, more ...string) said {
		t.Helper()
		return s.run(requests, append([]string{"ca", "sign", "--ca", "op/ca.pem", "--key", "op/ca.key", "--known", "op/known.toml"}, more...)...)
	}
	token := s.must(s.here("", "invite", "admin", "ann")).out
	joined := make(chan said)
	go func() { joined <- s.run(token, "join", "--config", s.file("ann")) }()
	var requests string
	for end := time.Now().Add(20 * time.Second); !strings.Contains(requests, `"ann"`); requests = s.must(s.here("", "ca", "pending")).out {
		if time.Now().After(end) {
			t.Fatalf("nobody waits: %s", requests)
		}
	}
	accept := regexp.MustCompile(`--accept admin/ann=[0-9a-f]{64}`).FindString(sign(requests).err)
	if accept == "" {
		t.Fatal("an admin's key that nobody has accepted was signed")
	}
	s.must(s.here(sign(requests, strings.Fields(accept)...).out, "ca", "install"))
	if got := <-joined; got.code != 0 {
		t.Fatalf("not joined: %s", got.err)
	}

	s.age("op", 25*day, 30*day)
	before := s.leaf()
	if got := s.must(s.far("ann", "", "status")); !strings.Contains(got.err, "waits for an operator's signature") || !s.leaf().Equal(before) {
		t.Errorf("a renewal that waits: %+v", got)
	}
	signed := sign(s.must(s.far("ann", "", "ca", "pending")).out)
	if got := s.must(s.far("ann", signed.out, "ca", "install")); !strings.Contains(got.out, "installed: 1") {
		t.Errorf("from afar: %+v, signed: %s", got, signed.err)
	}
	if s.must(s.far("ann", "", "status")); !s.leaf().After(before) {
		t.Error("not renewed when it was signed")
	}
	if err := os.WriteFile(s.in("policy.toml"), []byte(remotePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.far("ann", "", "policy", "apply", "policy.toml"); got.code != 1 || !strings.Contains(got.err, "strict mode") {
		t.Errorf("an admin applied a policy: %+v", got)
	}
}
