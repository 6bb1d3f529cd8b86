package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRootMakesAServerForTheOwnerOfItsFolder: a package has made the folder for the user
// of its service, and what root's commands make there before the service runs is that
// user's, init's files and those of a stopped server.
func TestRootMakesAServerForTheOwnerOfItsFolder(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not run as root")
		}
		t.Skip("needs root: others own what they make anyway")
	}
	const user, group = 12345, 12346
	dir := filepath.Join(t.TempDir(), "server")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for above := filepath.Dir(dir); above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
		if err := os.Chmod(above, 0o755); err != nil { // the way there
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, user, group); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "--dir", dir, "--domain", "example.org", "--address", "127.0.0.1:1"},
		{"invite", "portal", "ann", "--config", filepath.Join(dir, "config.toml")},
	} {
		if out, err := exec.Command("netport-server", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	files := 0
	if err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		files++
		if st := info.Sys().(*syscall.Stat_t); st.Uid != user || st.Gid != group {
			t.Errorf("%s belongs to %d:%d, want %d:%d", file, st.Uid, st.Gid, user, group)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if files < 9 { // keys, certificates, configuration, policy, state, audit
		t.Errorf("the server has %d files", files)
	}
}
