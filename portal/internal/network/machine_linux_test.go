package network

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/portal/internal/network/networktest"
)

// A process in another network has another machine, though all else is the same: this
// machine's loopback addresses do not lead there.
func TestMachineEndsWithItsNetwork(t *testing.T) {
	const told = "NETPORT_TEST_MACHINE"
	if os.Getenv(told) != "" {
		os.Stdout.WriteString("machine: " + Machine() + "\n")
		return
	}
	if !networktest.InNamespace(t) {
		return
	}
	ask := func(flags uintptr) string {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), told+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(string(out), "machine: "), "\n")
		return name
	}
	own := Machine()
	if len(own) < 32 {
		t.Fatalf("the name %q can be guessed", own)
	}
	if got := ask(0); got != own {
		t.Errorf("another process here says %q, this one %q", got, own)
	}
	if got := ask(unix.CLONE_NEWNET); got == own || len(got) < 32 {
		t.Errorf("another network says %q, this one %q", got, own)
	}
}
