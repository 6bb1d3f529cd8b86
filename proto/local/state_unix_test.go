//go:build unix

package local

import (
	"fmt"
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
	if _, err := HoldState(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("hold state %s: another daemon runs there (process %d); stop it first", dir, os.Getpid())) {
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
