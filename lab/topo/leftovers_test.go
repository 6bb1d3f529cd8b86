package topo_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

// scenarioVariable names the scenario that TestScenario plays in a process of its own.
const scenarioVariable = "NETPORT_LAB_SCENARIO"

// TestScenario is not a test: the tests below run it in a process of its own and look at what it leaves behind.
func TestScenario(t *testing.T) {
	scenario := os.Getenv(scenarioVariable)
	if scenario == "" {
		return
	}
	l := topo.New(t)
	server := l.Public("server")
	host := l.Router("home", topo.PortRestricted, topo.Uplink(link.Shape{})).Host("host")
	p := host.Start(host.Command("sh", "-c", "echo written by the program; setsid sleep 1000 & echo detached $!; wait"))
	detached := strings.TrimPrefix(p.WaitLog("detached"), "detached ")
	if !reaches(t, host, server, server.Addr(), true) {
		t.Fatal("the topology does not work")
	}
	switch scenario {
	case "fail":
		t.Error("on purpose")
	case "panic":
		fmt.Printf("scenario: %d %s\n", p.PID(), detached)
		if _, err := io.ReadAll(os.Stdin); err != nil { // until the other process watches
			t.Fatal(err)
		}
		panic("on purpose")
	}
}

// limit is for how long a scenario may be played, the wait for its place on the stage included.
const limit = 5 * time.Minute

// play runs a scenario; its artifacts end up in dir.
func play(scenario, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestScenario$", "-test.v", "-test.artifacts", "-test.outputdir="+dir, "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), scenarioVariable+"="+scenario)
	return cmd
}

// files are the files below dir, by their path without the parts that vary, and their contents.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path))] = content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFailedTestKeepsCapturesLogsAndCounters(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	out, err := play("fail", dir).CombinedOutput()
	if err == nil {
		t.Fatalf("the scenario passed:\n%s", out)
	}
	if !strings.Contains(string(out), "seed ") || !strings.Contains(string(out), "written by the program") {
		t.Errorf("its output has no seed or no log:\n%s", out)
	}
	kept := files(t, dir)
	for _, want := range []struct{ file, text string }{
		{"host/eth0.pcap", "question"},
		{"home/wan.pcap", "answer"},
		{"server/eth0.pcap", "question"},
		{"host/01-sh.log", "written by the program"},
		{"home/counters.txt", "masquerade"},
		{"home/counters.txt", "link, sent by home: accepted="},
		{"host/counters.txt", "eth0"},
		{"server/counters.txt", "Udp: "},
		{"inet/counters.txt", "server"},
	} {
		if !bytes.Contains(kept[want.file], []byte(want.text)) {
			t.Errorf("%s does not hold %q: %d bytes", want.file, want.text, len(kept[want.file]))
		}
	}
}

func TestPassedTestKeepsNothing(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if out, err := play("pass", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if kept := files(t, dir); len(kept) != 0 {
		t.Errorf("left behind: %q", kept)
	}
}

func TestPanicLeavesNoNamespaceBehind(t *testing.T) {
	need.Root(t)
	cmd := play("panic", t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child, detached int
	for lines := bufio.NewScanner(stdout); child == 0 && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "scenario: %d %d", &child, &detached)
	}
	if child == 0 {
		t.Fatal("the scenario did not start its programs")
	}
	childEnds, detachedEnds := watch(t, child), watch(t, detached)
	name := fmt.Sprintf("/proc/%d/ns/net", child)
	namespace, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := os.Open(name) // while it is open no other namespace gets the number
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	stdin.Close()
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the scenario did not panic")
	}
	childEnds()
	topo.New(t) // the next lab cleans up
	detachedEnds()
	if pids := inNamespace(t, namespace); len(pids) > 0 {
		t.Errorf("processes %v are left in %s", pids, namespace)
	}
}

// watch returns a function that waits until a process has ended.
func watch(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() {
		t.Helper()
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 {
			t.Fatalf("process %d lives on: %v", pid, err)
		}
	}
}

// inNamespace lists the threads that are in a network namespace.
func inNamespace(t *testing.T, namespace string) (threads []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range links {
		if target, err := os.Readlink(path); err == nil && target == namespace {
			threads = append(threads, path)
		}
	}
	return threads
}

func TestLabLeavesNothingBehind(t *testing.T) {
	need.Root(t)
	stage.EnterSerially(t)
	before := machine(t)
	// They are held open, or another process may make one that gets the same number.
	var namespaces []*os.File
	t.Run("lab", func(t *testing.T) {
		l := topo.New(t)
		server := l.Public("server")
		host := l.Router("home", topo.Symmetric, topo.Uplink(link.Shape{})).Host("host")
		host.Start(host.Command("sh", "-c", "setsid sleep 1000 & sleep 1000"))
		host.Dial("tcp", netip.AddrPortFrom(server.Addr(), server.Listen(80).Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()))
		for _, node := range []*topo.Node{server.Node, host.Node} {
			node.Do(func() {
				namespace, err := os.Open("/proc/thread-self/ns/net")
				if err != nil {
					t.Fatal(err)
				}
				namespaces = append(namespaces, namespace)
			})
		}
	})
	for _, namespace := range namespaces {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", namespace.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if threads := inNamespace(t, name); len(threads) > 0 {
			t.Errorf("%v are left in %s", threads, name)
		}
		namespace.Close()
	}
	if after := machine(t); after != before {
		t.Errorf("the machine has changed from\n%s\nto\n%s", before, after)
	}
}

// machine describes what a lab might leave on the machine: devices, mounts, rules, directories, and descriptors in this process.
func machine(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, pattern := range []string{"/sys/class/net/*", "/run/netns/*", filepath.Join(os.TempDir(), fmt.Sprintf("netport-lab-%d-*", os.Getpid()))} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, paths)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range descriptors {
		if target, err := os.Readlink(path); err == nil && !strings.Contains(target, "pipe:") && !strings.Contains(target, "anon_inode") {
			fmt.Fprintln(&b, target)
		}
	}
	b.Write(mounts)
	return b.String()
}
