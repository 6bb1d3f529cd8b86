package privilege

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// T38: what is given back is gone on every thread, and cannot be had again.
func TestEveryThreadKeepsOnlyWhatIsNamed(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not run as root")
		}
		t.Skip("needs root: without capabilities there is nothing to give back")
	}
	program := filepath.Join(t.TempDir(), "keep")
	build := exec.Command("go", "build", "-o", program, "./testdata/keep")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the programs are built
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{4, 27}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kept := fmt.Sprintf("%016x", uint64(Of(unix.CAP_NET_ADMIN)))
	none := strings.Repeat("0", 16)
	want := fmt.Sprintf("Groups: CapInh: %s CapPrm: %s CapEff: %s CapBnd: %s CapAmb: %s NoNewPrivs: 1", none, kept, kept, kept, none)
	threads := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(threads) < 5 {
		t.Fatalf("%d threads: %s", len(threads), out)
	}
	for _, got := range threads {
		if strings.TrimSpace(got) != want {
			t.Errorf("a thread has\n%s, want\n%s", got, want)
		}
	}
}
