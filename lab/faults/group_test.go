package faults

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
)

// group is a control group of version 1 or 2 that limits something for one daemon.
type group struct {
	t   testing.TB
	dir string
}

func newGroup(t testing.TB, controller string) group {
	t.Helper()
	dir, err := os.MkdirTemp(need.Groups(t, controller), "netport-lab-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the daemon reads its limit there
		t.Fatal(err)
	}
	t.Cleanup(func() { // when those in it have ended
		await.Until(t, "without "+dir, func() error { return os.Remove(dir) })
	})
	return group{t, dir}
}

// set writes the first of the files that there is: their names differ between the versions.
func (g group) set(value int64, files ...string) {
	g.t.Helper()
	for _, f := range files {
		name := filepath.Join(g.dir, f)
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(name, strconv.AppendInt(nil, value, 10), 0); err != nil {
			g.t.Fatal(err)
		}
		return
	}
	g.t.Fatalf("%s has none of %v", g.dir, files)
}

// read returns what the first of the files that there is says.
func (g group) read(files ...string) string {
	g.t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(g.dir, f))
		if err == nil {
			return string(b)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			g.t.Fatal(err)
		}
	}
	g.t.Fatalf("%s has none of %v", g.dir, files)
	return ""
}

// count is the number behind a word, in what read returns.
func (g group) count(word string, files ...string) int64 {
	g.t.Helper()
	for line := range strings.Lines(g.read(files...)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), word); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return n
		}
	}
	g.t.Fatalf("%s: no %q in %v", g.dir, word, files)
	return 0
}

// launch starts a daemon in the group.
func (g group) launch(d *daemon.Daemon) {
	g.t.Helper()
	need.Program(g.t, "setpriv")
	const enter = `echo 0 >"$0/cgroup.procs" && exec setpriv --reuid=` + daemon.User + ` --regid=nogroup --clear-groups "$@"`
	run := d.Command("run")
	d.LaunchBy(d.Host().Command("sh", append([]string{"-c", enter, g.dir}, run.Args...)...))
}
