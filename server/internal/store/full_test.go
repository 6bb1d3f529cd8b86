package store

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// writeUntilFull writes until there is no room for more, then once more with room. The
// limit on the size of files stands for the end of the disk.
func writeUntilFull(file string) int {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(file)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	defer s.Close()
	info, err := os.Stat(file)
	if err != nil {
		return 1
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return 1
	}
	small := syscall.Rlimit{Cur: uint64(info.Size()) + 1<<16, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		return 1
	}
	big := make([]byte, 1<<15)
	n := 0
	for ; n < 1000 && err == nil; n++ {
		_, err = s.Commit(Change{Put: map[string][]byte{"count": fmt.Append(nil, n), fmt.Sprintf("big/%d", n): big}})
	}
	fmt.Println("full", n-1, err)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return 1
	}
	if _, err := s.Commit(Change{Put: map[string][]byte{"after": big}}); err != nil {
		fmt.Println("after", err)
		return 1
	}
	return 0
}

// F33: a commit for which there is no room fails and changes nothing, and the
// next one for which there is room again succeeds.
func TestFullDiskChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := Create(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NETPORT_STORE_FILLER="+file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var refused int
	if _, err := fmt.Sscanf(string(out), "full %d", &refused); err != nil || refused < 1 || !strings.Contains(string(out), "file too large") {
		t.Fatalf("the disk was not full: %s", out)
	}
	again, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	count, err := again.Get("count")
	if err != nil || string(count.Value) != fmt.Sprint(refused-1) {
		t.Errorf("the last commit is %q (%v), want %d", count.Value, err, refused-1)
	}
	big, err := again.List("big/")
	if err != nil || len(big) != refused {
		t.Errorf("%d entries, %v; want %d", len(big), err, refused)
	}
	if e, err := again.Get("after"); err != nil || e.Revision == 0 {
		t.Errorf("what was written after there was room again: %v, %v", e.Revision, err)
	}
}
