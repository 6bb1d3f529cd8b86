package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/relay/internal/daemon"
)

// TestRelayReadsItsConfigurationAnew: SIGHUP changes what can be changed, names the rest,
// and a mistake changes nothing.
func TestRelayReadsItsConfigurationAnew(t *testing.T) {
	file := install(t)
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(filepath.Dir(file), "kept.toml") // by which commands find the socket
	write := func(name, more string) {
		t.Helper()
		if err := os.WriteFile(name, append(first, more...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(kept, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan string, 1)
	go func() {
		code, _, errs := call(ctx, "run", "--config", file)
		ended <- fmt.Sprintf("exit %d\n%s", code, errs)
	}()
	until := func(what string, seen func(daemon.Status) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			_, out, errs := call(t.Context(), "status", "--json", "--config", kept)
			var s daemon.Status
			if json.Unmarshal([]byte(out), &s) == nil && seen(s) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s%s", what, out, errs)
			}
		}
	}
	until("it runs", func(s daemon.Status) bool { return s.Name == "relay-1" })
	for _, step := range []struct{ more, applied, restart, text string }{
		{"deny = [\"198.51.100.0/24\"]\ndrain = \"0s\"\ncapacity = 77\npackets_per_second = 100\n", "deny drain packets_per_second", "capacity", "config    needs a restart to take: capacity\n"},
		{"drain = \"no time\"\n", "", "", "all stays as it was: " + file + ":3:9: drain \"no time\""},
		{"", "deny drain packets_per_second", "", ""},
	} {
		write(file, step.more)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(step.more, func(s daemon.Status) bool {
			r := s.Reload
			return r != nil && strings.Join(r.Applied, " ") == step.applied && strings.Join(r.Restart, " ") == step.restart && (r.Error != "") == (step.applied == "")
		})
		_, out, _ := call(t.Context(), "status", "--wide", "--config", kept)
		if !strings.Contains(out, step.text) || strings.Contains(out, "config  ") != (step.text != "") {
			t.Errorf("%q: status says\n%s", step.more, out)
		}
	}
	cancel()
	if got := <-ended; !strings.HasPrefix(got, "exit 0\n") || !strings.Contains(got, `msg="configuration needs a restart to be taken whole" keys=capacity`) {
		t.Error(got)
	}
}

func TestCheckOpensNothingAndSaysAll(t *testing.T) {
	file := install(t)
	if code, out, errs := call(t.Context(), "run", "--check", "--config", file); code != 0 || out != "ok\n" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "state")); err == nil {
		t.Error("it has made the state folder")
	}
	state := filepath.Join(filepath.Dir(file), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(file), "key.pem")); err != nil {
		t.Fatal(err)
	}
	code, out, errs := call(t.Context(), "run", "--check", "--config", file)
	if code != 1 || out != "" || !strings.Contains(errs, "netport-relay: read "+filepath.Join(filepath.Dir(file), "key.pem")) || !strings.Contains(errs, "\nnetport-relay: use state "+state) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	t.Setenv("NETPORT_RELAY_MODE", "fast")
	if code, _, errs := call(t.Context(), "run", "--check", "--config", file); code != 1 || !strings.HasPrefix(errs, "netport-relay: environment variable NETPORT_RELAY_MODE: mode \"fast\"") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}
