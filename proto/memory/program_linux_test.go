package memory

import (
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestOfProgram: only what is as in the program's own file is given back, not what the
// loader has relocated, a debugger has changed, is swapped out, is locked, or is written.
func TestOfProgram(t *testing.T) {
	part := func(span, perms, inode, file string, said ...string) string {
		return span + " " + perms + " 00000000 fe:00 " + inode + " " + file + "\nSize: 8 kB\n" + strings.Join(said, "\n") + "\nVmFlags: rd mr\n"
	}
	clean := []string{"Anonymous:             0 kB", "Swap:                  0 kB", "Locked:                0 kB"}
	list := part("1000-3000", "r-xp", "7", "/bin/p", clean...) +
		part("3000-5000", "r--p", "7", "/bin/p (deleted)", clean...) +
		part("5000-6000", "r--p", "7", "/bin/p", "Anonymous: 4 kB") +
		part("6000-7000", "r--p", "7", "/bin/p", "Swap: 4 kB") +
		part("7000-8000", "r--p", "7", "/bin/p", "Locked: 4 kB") +
		part("8000-9000", "rw-p", "7", "/bin/p", clean...) +
		part("9000-a000", "r-xp", "8", "/lib/other.so", clean...) +
		part("a000-b000", "r--p", "0", "", clean...)
	got := ofProgram(strings.NewReader(list), 0x2000)
	if want := []mapping{{0x1000, 0x3000}, {0x3000, 0x5000}}; !slices.Equal(got, want) {
		t.Error(cmp.Diff(want, got, cmp.AllowUnexported(mapping{})))
	}
	if got := ofProgram(strings.NewReader(list), 0x100000); got != nil {
		t.Errorf("code of no file: %v", got)
	}
}

// TestGiveBack: a program all of which is in memory has little there afterwards, and goes on.
func TestGiveBack(t *testing.T) {
	list, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	for _, m := range ofProgram(list, reflect.ValueOf(giveBack).Pointer()) {
		if _, _, err := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_POPULATE_READ); err != 0 {
			t.Fatal(err)
		}
	}
	before := fromFiles(t)
	giveBack()
	if after := fromFiles(t); after > before*2/3 {
		t.Errorf("%d kB of files in memory, and %d kB after they were given back", before, after)
	}
}

// fromFiles is what this process has of files in memory, in kB.
func fromFiles(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
