package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs the calling test again in a network namespace of its own,
// in another process, and reports whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "NETPORT_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		why := "needs root: network namespaces (" + err.Error() + ")"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// ip runs ip(8).
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// A machine moves from Wi-Fi to LTE, as the kernel tells of it.
func TestKernelTellsOfLinksAddressesAndRoutes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link add wlan0 type veth peer name air")
	ip(t, "link add lte0 type veth peer name tower")
	w := New(slog.New(slog.DiscardHandler))
	changes, end := w.Changes()
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	// until waits for changes until they have shown all that is wanted.
	until := func(what string, shown func(Change) bool) {
		t.Helper()
		var all Change
		for timeout := time.After(10 * time.Second); !shown(all); {
			select {
			case c := <-changes:
				all = all.merge(c)
			case <-timeout:
				t.Fatalf("%s: told %+v in 10 s", what, all)
			}
		}
	}
	const wlan, lte = "10.1.0.7", "10.2.0.7"
	has := func(list []netip.Addr, a string) bool { return slices.Contains(list, addr(a)) }

	ip(t, "addr add 10.1.0.7/24 dev wlan0")
	ip(t, "link set air up")
	ip(t, "link set wlan0 up")
	until("wlan0 up", func(c Change) bool { return has(c.New, wlan) && c.Network && c.Link })
	ip(t, "route add default via 10.1.0.1")
	until("default route", func(c Change) bool { return c.Network })
	if got, want := w.Current().String(), "10.1.0.1 10.1.0.0/24"; got != want {
		t.Errorf("network %q, want %q", got, want)
	}

	ip(t, "addr add 10.2.0.7/24 dev lte0")
	ip(t, "link set tower up")
	ip(t, "link set lte0 up")
	until("lte0 up", func(c Change) bool { return has(c.New, lte) && !c.Network })
	ip(t, "route add default via 10.2.0.1 metric 500")
	ip(t, "link set air down") // out of range
	until("link lost", func(c Change) bool { return c.Link && !has(c.Gone, wlan) })
	ip(t, "route del default via 10.1.0.1")
	ip(t, "addr del 10.1.0.7/24 dev wlan0")
	until("moved", func(c Change) bool { return has(c.Gone, wlan) && c.Network })
	if got, want := w.Current().String(), "10.2.0.1 10.2.0.0/24"; got != want {
		t.Errorf("network %q, want %q", got, want)
	}

	ip(t, "addr add 2001:db8::7/64 dev lte0 nodad")
	until("IPv6 beside it", func(c Change) bool { return has(c.New, "2001:db8::7") && !c.Network })
	ip(t, "route del default via 10.2.0.1")
	ip(t, "route add default via 2001:db8::1")
	until("IPv6 alone", func(c Change) bool { return c.Network })
	if got := w.Current().Gateway; got != addr("2001:db8::1") {
		t.Errorf("gateway %v, want that of IPv6", got)
	}
}
