//go:build linux

package bpf

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// asChild makes a run of the test binary the daemon of another process: its value
// is what the child is to do.
const asChild = "NETPORT_BPF_CHILD"

// job is what a child does: it opens a Kernel, adds a pair, and runs.
type job struct {
	Mode, PinDir string
	Pair         Pair
}

func TestMain(m *testing.M) {
	if order := os.Getenv(asChild); order != "" {
		fmt.Println(child(order))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child does a job and says so on a line; an error is returned.
func child(order string) error {
	var j job
	if err := json.Unmarshal([]byte(order), &j); err != nil {
		return err
	}
	k, err := Open(relayOptions(j.Mode, j.PinDir, slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := k.Add(j.Pair, Terms{Lifetime: time.Hour}); err != nil {
		return err
	}
	fmt.Println("ready")
	return k.Run(context.Background(), func(Event) {})
}

// start starts a process with a job, and returns what kills it. rights are those
// of the process; nil: all that the test has.
func (w *world) start(j job, rights *syscall.SysProcAttr) (kill func()) {
	w.Helper()
	order, err := json.Marshal(j)
	if err != nil {
		w.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asChild+"="+string(order))
	c.Stderr = os.Stderr
	c.SysProcAttr = rights
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start() // on this thread, and so in its namespace
	}
	if err != nil {
		w.Fatal(err)
	}
	kill = func() {
		c.Process.Kill()
		c.Wait()
	}
	w.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		w.Fatalf("the other process says %q, %v", line, err)
	}
	return kill
}
