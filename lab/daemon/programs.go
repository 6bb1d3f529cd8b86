package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/lab/topo"
)

// roles are the programs that there are, netport-ROLE each.
var roles = []string{"server", "relay", "portal"}

// programs are the three programs, by role, as open files: they have no name that could be left behind, and stay
// open while the process lives. They are those in the folder that NETPORT_BIN names, else they are built from the
// folders beside the lab's.
var programs = sync.OnceValues(func() (map[string]*os.File, error) {
	if dir := os.Getenv("NETPORT_BIN"); dir != "" {
		return openPrograms(dir)
	}
	dir, err := os.MkdirTemp("", "netport-build-")
	if err != nil {
		return nil, fmt.Errorf("build Netport's programs: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return nil, fmt.Errorf("build Netport's programs (or name a folder that has them in NETPORT_BIN): %w", err)
	}
	return openPrograms(dir)
})

func build(dir string) error {
	lab, err := goCommand("list", "-m", "-f", "{{.Dir}}", "github.com/netport/netport/lab")
	if err != nil {
		return err
	}
	for _, role := range roles {
		source := filepath.Join(strings.TrimSpace(lab), "..", role)
		if _, err := goCommand("build", "-C", source, "-trimpath", "-buildvcs=false", "-o", programFile(dir, role), "."); err != nil {
			return err
		}
	}
	return nil
}

// BuildTime is how long a program may take to be built, where nothing of it was built before and others keep the processors
// busy.
const BuildTime = 5 * time.Minute

func goCommand(args ...string) (string, error) {
	cmd := topo.Here("go", args...)
	cmd.Env, cmd.Limit = append(os.Environ(), "CGO_ENABLED=0"), BuildTime
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// Install puts another version of its program in the place of the daemon's own, as an upgrade does: what change makes of
// the one that is there. It runs when the daemon is started next.
func (d *Daemon) Install(change func(program []byte) []byte) {
	d.t.Helper()
	program, err := os.ReadFile(d.program)
	if err != nil {
		d.t.Fatalf("%s: read its program: %v", d.name, err)
	}
	d.installed++
	name := filepath.Join(d.host.Dir(), fmt.Sprintf("%s.%d", filepath.Base(d.program), d.installed))
	if err := WriteProgram(name, change(program)); err != nil {
		d.t.Fatalf("%s: install a program: %v", d.name, err)
	}
	d.program = name
}

func programFile(dir, role string) string { return filepath.Join(dir, "netport-"+role) }

func openPrograms(dir string) (map[string]*os.File, error) {
	files := make(map[string]*os.File)
	for _, role := range roles {
		f, err := os.Open(programFile(dir, role))
		if err != nil {
			return nil, fmt.Errorf("find Netport's programs: %w", err)
		}
		files[role] = f
	}
	return files, nil
}

// Install writes the programs into dir, where every user can run them: netport-ROLE each.
func Install(dir string) error {
	files, err := programs()
	if err != nil {
		return err
	}
	for role, f := range files {
		info, err := f.Stat()
		if err == nil {
			err = copyProgram(programFile(dir, role), io.NewSectionReader(f, 0, info.Size()))
		}
		if err != nil {
			return fmt.Errorf("install netport-%s: %w", role, err)
		}
	}
	return nil
}

// WriteProgram writes a program into a new file, which every user can run.
func WriteProgram(file string, program []byte) error {
	return copyProgram(file, bytes.NewReader(program))
}

// copyProgram writes a program. Meanwhile none is started: it would hold the file open for a moment, and a file that is open
// to be written cannot be run.
func copyProgram(name string, from io.Reader) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	to, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
