package folder

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRootWorksAsTheOwnerOfAFolder: what it makes there is the owner's, what it starts
// cannot become root again, and after it is root as before.
func TestRootWorksAsTheOwnerOfAFolder(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not run as root")
		}
		t.Skip("needs root: others own what they make anyway")
	}
	const user, group = 12345, 12346
	dir := filepath.Join(t.TempDir(), "daemon")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	above := filepath.Dir(dir)
	for ; above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
		if err := os.Chmod(above, 0o755); err != nil { // the way there
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, user, group); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	restore, err := AsOwner(dir)
	if err != nil {
		t.Fatal(err)
	}
	made := os.WriteFile(filepath.Join(dir, "key"), nil, 0o600)
	_, read := os.ReadFile(secret)
	child, started := exec.Command("grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status").Output()
	restore()

	if made != nil || started != nil {
		t.Fatalf("as the owner: make a file: %v; start a program: %v", made, started)
	}
	if !os.IsPermission(read) {
		t.Errorf("as the owner, read a file of root's: %v, want permission denied", read)
	}
	info, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != user || st.Gid != group {
		t.Errorf("the file belongs to %d:%d, want %d:%d", st.Uid, st.Gid, user, group)
	}
	want := "Uid: 12345 12345 12345 12345 Gid: 12346 12346 12346 12346 Groups: 12346"
	if got := strings.Join(strings.Fields(string(child)), " "); got != want {
		t.Errorf("a program started meanwhile has\n%s, want\n%s", got, want)
	}
	if _, err := os.ReadFile(secret); err != nil {
		t.Errorf("root again, but: %v", err)
	}
}

func TestOwnersOfRootsFoldersStayWhoTheyAre(t *testing.T) {
	for _, dir := range []string{"/", filepath.Join(t.TempDir(), "none")} {
		before := os.Geteuid()
		restore, err := AsOwner(dir)
		if err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != before {
			t.Errorf("in %s user %d has become %d", dir, before, os.Geteuid())
		}
		restore()
	}
}
