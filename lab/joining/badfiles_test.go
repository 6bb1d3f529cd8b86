package joining

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/netport/netport/proto/identity/identitytest"
)

// refuses runs a command that must end by itself with status 1, words that have all of want, and no
// more than a limit of processor time: the machine has others to serve.
func (w *world) refuses(what, role string, limit time.Duration, args []string, want ...string) {
	w.t.Helper()
	cmd := w.command(role, args...)
	b, err := cmd.CombinedOutput()
	out := string(b)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		w.t.Errorf("%s: netport-%s %s ended with %v, want status 1: %.500s", what, role, strings.Join(args, " "), err, out)
		return
	}
	for _, part := range want {
		if !strings.Contains(out, part) {
			w.t.Errorf("%s: netport-%s says %.500q, want it to have %q", what, role, out, part)
		}
	}
	if strings.ContainsAny(out, "\x1b\x00") || len(out) > 4096 {
		w.t.Errorf("%s: netport-%s says %d bytes, or no text: %.500q", what, role, len(out), out)
	}
	if took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); took > limit {
		w.t.Errorf("%s: netport-%s took %v, at most %v is allowed", what, role, took, limit)
	}
}

// put makes something at a path, in the place of what is there.
func put(t *testing.T, path string, make func(path string) error) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), make(path)); err != nil {
		t.Fatal(err)
	}
}

func text(s string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte(s), 0o600) }
}

func fifo(path string) error { return syscall.Mkfifo(path, 0o600) }

func folder(path string) error { return os.Mkdir(path, 0o700) }

func linkTo(target string) func(string) error {
	return func(path string) error { return os.Symlink(target, path) }
}

// sparse is a file of 1 GB that takes no place.
func sparse(path string) error {
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30))
}

// restored saves a file and returns what puts it back.
func restored(t *testing.T, path string) (content string, back func()) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), func() { put(t, path, text(string(b))) }
}

// offline makes folders of all three roles, with the daemons not running.
func (w *world) offline() map[string]string {
	w.t.Helper()
	w.ask("issue", "portal", "ann", "--out", w.folder("ann"))
	w.issueRelay("relay-1", 0)
	w.run("server", nil, "init", "--dir", w.folder("other"), "--domain", domain, "--address", w.free())
	return map[string]string{"portal": "ann", "relay": "relay-1", "server": "other"}
}

// B75, T37: whatever stands where a key should, each program says in a line which file it is and ends;
// none waits, reads without end, or runs.
func TestWhatIsNoKeyStartsNoDaemon(t *testing.T) {
	w := newWorld(t)
	f := identitytest.NewForger(t)
	f.Key("another")
	f.OpenSSL("pkcs8", "-topk8", "-in", "another.key", "-out", "encrypted.key", "-v2", "aes-128-cbc", "-passout", "pass:x")
	another, encrypted := read(t, f.File("another.key")), read(t, f.File("encrypted.key"))
	for role, name := range w.offline() {
		keys := []string{"key.pem"}
		if role == "server" {
			keys = []string{"key.pem", "ca.key", "policy.key", "stamp.key"}
		}
		for _, key := range keys {
			file := filepath.Join(w.folder(name), key)
			good, back := restored(t, file)
			elsewhere := filepath.Join(w.folder(name), "elsewhere")
			type kind struct {
				what, want string
				make       func(string) error
			}
			kinds := []kind{
				{"missing", "no such file", func(string) error { return nil }},
				{"a folder", "not a regular file", folder},
				{"a FIFO", "not a regular file", fifo},
				{"/dev/zero", "not a regular file", linkTo("/dev/zero")},
				{"1 GB", "larger than", sparse},
				{"empty", "no PEM block", text("")},
				{"text", "no PEM block", text(strings.Repeat("key\n", 1000))},
				{"10,000 beginnings", "no PEM block", text(strings.Repeat("-----BEGIN PRIVATE KEY-----\n", 2000))},
				{"encrypted", "encrypted", text(encrypted)},
				{"cut", "no PEM block", text(good[:len(good)/2])},
				{"mode 0644", "chmod 600", func(path string) error {
					return errors.Join(os.WriteFile(path, []byte(good), 0o600), os.Chmod(path, 0o644))
				}},
				{"a link to one of mode 0640", "chmod 600", func(path string) error {
					return errors.Join(os.WriteFile(elsewhere, []byte(good), 0o600), os.Chmod(elsewhere, 0o640), os.Symlink(elsewhere, path))
				}},
			}
			if key == "key.pem" {
				kinds = append(kinds, kind{"another's key", "not the one of this certificate", text(another)})
			}
			if os.Geteuid() == 0 {
				kinds = append(kinds, kind{"a link to another user's", "", // whoever has the rights to read it is told whose it is
					func(path string) error {
						return errors.Join(os.WriteFile(elsewhere, []byte(good), 0o600), os.Chmod(elsewhere, 0o600), os.Chown(elsewhere, 65534, 65534), os.Symlink(elsewhere, path))
					}})
			}
			for _, k := range kinds {
				os.Remove(elsewhere)
				put(t, file, k.make)
				want := filepath.Base(file)
				if k.what == "another's key" {
					want = "cert.pem" // it could be either
				}
				w.refuses(key+": "+k.what, role, 5*time.Second, []string{"run", "--config", w.config(name)}, want, k.want)
			}
			back()
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wide(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// badTOML is what is no file of ours, whatever it should be, made of one that is good.
func badTOML(good string) map[string]struct {
	make func(string) error
	want string
} {
	type bad = struct {
		make func(string) error
		want string
	}
	lines := strings.Count(good, "\n")
	next := fmt.Sprintf(":%d:", lines+1)
	with := func(s string) func(string) error { return text(good + s) }
	return map[string]bad{
		"missing":                  {func(string) error { return nil }, "no such file"},
		"a folder":                 {folder, "not a regular file"},
		"a FIFO":                   {fifo, "not a regular file"},
		"/dev/zero":                {linkTo("/dev/zero"), "not a regular file"},
		"1 GB":                     {sparse, "larger than"},
		"binary":                   {text("\x7fELF\x02\x01\x01\x00\x00"), ":1:"},
		"invalid UTF-8":            {with("# \xff\xfe\n"), "not UTF-8"},
		"UTF-16":                   {text(wide(good)), "not UTF-8"},
		"a key that is none":       {text("alow = 1\n" + good), `:1:1: unknown key "alow"`},
		"a file that is included":  {text("include = \"/etc/shadow\"\n" + good), `:1:1: unknown key "include"`},
		"nesting":                  {text("domain = " + strings.Repeat("[", 10_000) + "\n"), ":1:"},
		"nesting that ends":        {text("domain = " + strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001) + "\n"), ":1:"},
		"tables in tables":         {text("domain = " + strings.Repeat("{a=", 10_000) + "\n"), ":1:"},
		"a key of 5,000,000 parts": {text(strings.Repeat("a.", 5_000_000) + "a = 1\n"), ":1:32: a key of more than 16 parts"},
		"cut":                      {with("[[fo"), next},
		"escapes":                  {with("\x1b[2J = 1\n"), next},
	}
}

// B78-B80, B90: each program says of a configuration what is wrong with it, and where, at once; it never runs with a
// part of one. (What the longest take of time and memory is counted in package conffile.)
func TestBadConfigurationsStartNoDaemon(t *testing.T) {
	w := newWorld(t)
	for role, name := range w.offline() {
		file := w.config(name)
		good, back := restored(t, file)
		cases := badTOML(good)
		top := func(line string) func(string) error { return text(line + "\n" + good) }
		key := map[string]string{"portal": "linger", "relay": "drain", "server": "certificate_life"}[role]
		for what, c := range map[string][2]string{
			"a key misspelt":          {`log_levle = "info"`, `:1:1: unknown key "log_levle"; did you mean "log_level"?`},
			"a key twice":             {`certificate = "cert.pem"`, "certificate"},
			"a value of another type": {`key = 5`, ":1:"},
			"a negative duration":     {key + ` = "-1s"`, ":1:"},
			"an endless duration":     {key + ` = "1e99h"`, ":1:"},
			"a duration without unit": {key + ` = "10"`, ":1:"},
			"a duration as a number":  {key + ` = 10`, ":1:"},
		} {
			cases[what] = struct {
				make func(string) error
				want string
			}{top(c[0]), c[1]}
			if what != "a key twice" && strings.Contains(good, "\n"+strings.SplitN(c[0], " ", 2)[0]+" = ") {
				body := strings.Replace(good, "\n"+strings.SplitN(c[0], " ", 2)[0]+" = ", "\n# ", 1)
				cases[what] = struct {
					make func(string) error
					want string
				}{text(c[0] + "\n" + body), c[1]}
			}
		}
		for what, c := range cases {
			put(t, file, c.make)
			w.refuses(role+": "+what, role, 2*time.Second, []string{"run", "--config", file}, filepath.Base(file), c.want)
		}
		// What a Windows editor saves is read.
		put(t, file, text("\ufeff"+strings.ReplaceAll(good, "\n", "\r\n")))
		p := w.start(role, name)
		p.waitLog(map[string]string{"portal": "portal running", "relay": "relay runs", "server": "listening"}[role])
		p.stop()
		back()
	}
}
