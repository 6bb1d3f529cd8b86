//go:build unix

package commandtest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// CheckHelp asks a program that is installed as name, and every command of it, for help, and the program for its version:
// as a user who owns nothing, with no environment, in a folder that is not his. Each is answered on standard output, and
// ends with exit code 0. Without the right to become another user it is done as this one.
//
// The program is the test's own binary: what it runs as under that name is for its TestMain.
func CheckHelp(t *testing.T, name string, program *cobra.Command) {
	t.Helper()
	file := install(t, name)
	ask := func(want string, args ...string) {
		t.Helper()
		var out, said bytes.Buffer
		cmd := exec.Command(file, args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", []string{}, &out, &said
		asNobody(cmd)
		if err := cmd.Run(); err != nil || said.Len() > 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s %q: %v, want exit code 0 and %q\nstdout: %s\nstderr: %s", name, args, err, want, &out, &said)
		}
	}
	ask(name+" version ", "--version")
	ask("Usage:", "--help")
	for _, c := range below(program) {
		ask("Usage:\n  "+c.CommandPath(), append(strings.Fields(c.CommandPath())[1:], "--help")...)
	}
}

// install copies the test's binary to where everybody can run it.
func install(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "commandtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	file := filepath.Join(dir, name)
	to, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// asNobody lets a program that root starts run as user 65534, in no other group.
func asNobody(cmd *exec.Cmd) {
	const nobody = 65534
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}
