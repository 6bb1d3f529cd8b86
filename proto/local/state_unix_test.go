//go:build unix

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateIsOneDaemons(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	first, err := HoldState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := HoldState(dir); err == nil || !strings.Contains(err.Error(), "hold state "+dir+": another daemon runs there") {
		t.Errorf("a second time: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := HoldState(link); err == nil {
		t.Error("a second time by another name")
	}
	first.Release()
	again, err := HoldState(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again.Release()
}

// TestFoldersAboveAStateAreNobodyElses: as with ssh's StrictModes, for a file is not safer
// than the folders that lead to it.
func TestFoldersAboveAStateAreNobodyElses(t *testing.T) {
	for _, c := range []struct {
		mode os.FileMode
		at   string // whose mode it is, below the test's folder
		want string // of the refusal
	}{
		{0o755, "a", ""},
		{0o700, "a/b/state", ""},
		{0o750, "a/b/state", ""},
		{0o777 | os.ModeSticky, "a", ""}, // as /tmp
		{0o777, "a", "others can write in the folder"},
		{0o702, "a/b", "others can write in the folder"},
		{0o777, "a/b/state", "others can write in the folder"},
		{0o720, "a/b/state", "others can write in the folder"},
		{0o777 | os.ModeSticky, "a/b/state", "others can write in the folder"},
	} {
		root := t.TempDir()
		state := filepath.Join(root, "a", "b", "state")
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, c.at), c.mode); err != nil {
			t.Fatal(err)
		}
		err := CheckState(state)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of mode %v: %v, want %q", c.at, c.mode, err, c.want)
		}
	}
	if os.Geteuid() == 0 {
		for _, at := range []string{"a", "a/b", "a/b/state"} {
			root := t.TempDir()
			state := filepath.Join(root, "a", "b", "state")
			if err := os.MkdirAll(state, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(filepath.Join(root, at), 65534, 65534); err != nil {
				t.Fatal(err)
			}
			if err := CheckState(state); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
				t.Errorf("%s of another user: %v", at, err)
			}
		}
	}
}
