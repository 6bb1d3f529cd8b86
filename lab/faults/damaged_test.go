package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// damages are what a crash, a disk or a hand may have made of a file.
var damages = []struct {
	name string
	do   func(b []byte) []byte
}{
	{"empty", func([]byte) []byte { return nil }},
	{"half", func(b []byte) []byte { return b[:len(b)/2] }},
	{"flipped", func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1 << rand.IntN(8)
		return b
	}},
	{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
}

// kept are the files that a daemon which does not run has written for itself, with what they hold.
func kept(t *testing.T, d *daemon.Daemon) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(d.Dir(), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		// What an operator or init has made is package joining's; what stands in a lock is for people.
		switch ext := filepath.Ext(name); {
		case ext == ".toml" || ext == ".pem" || ext == ".key":
			return nil
		}
		b, err := os.ReadFile(name)
		if err == nil && filepath.Ext(name) != ".lock" && filepath.Base(name) != "lock" {
			files[name] = b
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// F35: whatever has become of a file that a daemon keeps for itself, the daemon says so in one line that names it. It refuses
// to start, or goes on without what was there and works as soon as it has a server; it never grants or opens more.
func TestDaemonsWithDamagedFiles(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	ln := w.plc.Listen(otherPort)
	w.connect(otherEntry, ln)
	w.Server.Run("revoke", "--key", fmt.Sprintf("%064d", 7)) // so that revocations are kept, too
	want := grants(w)
	for _, d := range w.daemons() {
		d.Stop()
		files := kept(t, d)
		if len(files) == 0 {
			t.Errorf("%s keeps nothing: the test shows nothing", d.Name())
		}
		for name, whole := range files {
			for _, damage := range damages {
				if err := os.WriteFile(name, damage.do(whole), 0o600); err != nil {
					t.Fatal(err)
				}
				w.runDamaged(d, filepath.Base(name), damage.name, want)
				if err := os.WriteFile(name, whole, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.Launch()
		await.Until(t, d.Name()+" ready", func() error { return d.Command("status").Run() })
	}
	w.waitUp("other")
	w.connect(otherEntry, ln)
}

// runDamaged starts a daemon one of whose files is damaged, and stops it if it runs.
func (w *world) runDamaged(d *daemon.Daemon, file, damage, policy string) {
	t := w.t
	t.Helper()
	what := fmt.Sprintf("%s: %s %s", d.Name(), damage, file)
	d.Launch()
	refused := false
	await.Until(t, what+": ready or ended", func() error {
		select {
		case <-d.Process().Done():
			refused = true
			return nil
		default:
		}
		return d.Command("status").Run()
	})
	if !refused && d == w.Server.Daemon {
		if now := grants(w); now != policy {
			t.Errorf("%s: the policy is\n%s\nand was\n%s", what, now, policy)
		}
	}
	audit := file == "audit.log"
	if audit && damage == "flipped" && d.Command("audit", "verify").Run() == nil {
		t.Errorf("%s: audit verify finds nothing", what)
	}
	if !refused {
		d.Stop() // and with it all of the log is there
	}
	last := lastLine(d.Log())
	// A bit may be of something that nobody reads, but in an audit log; that one was emptied nothing in its folder tells.
	silent := damage == "flipped" && !audit || damage == "empty" && audit
	switch said := logged(d, 0, "level=WARN", file) == nil || logged(d, 0, "level=ERROR", file) == nil; {
	case strings.Contains(d.Log(), "goroutine "):
		t.Errorf("%s: it crashed:\n%s", what, d.Log())
	case refused && (d.Process().Wait() != 1 || !strings.HasPrefix(last, "netport-") || !strings.Contains(last, file)):
		t.Errorf("%s: ended with %d and said\n%s", what, d.Process().Wait(), d.Log())
	case !refused && !said && !silent:
		t.Errorf("%s: it says nothing of that:\n%s", what, d.Log())
	}
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// grants is what the server's policy says.
func grants(w *world) string {
	w.t.Helper()
	return w.Server.Run("policy", "show")
}
