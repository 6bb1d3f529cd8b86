package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"

	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/relay/internal/daemon"
)

// keepAll leaves the test its capabilities.
func keepAll(privilege.Set) error { return nil }

// call runs the program and returns what it printed.
func call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = command.Run(ctx, New(keepAll), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// install writes a relay's files, with a server that nobody can reach.
func install(t *testing.T) (file string) {
	t.Helper()
	dir := identitytest.New(t).Enrol(identity.Relay, "relay-1")
	file = filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte("servers = [\"127.0.0.1:1\"]\naddresses = [\"127.0.0.1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, args := range [][]string{{"run"}, {"status"}, {"drain"}, {"unload"}} {
		code, out, _ := call(t.Context(), append(args, "--help")...)
		if code != 0 || !strings.Contains(out, "Examples:\n  netport-relay "+args[0]) {
			t.Errorf("%v --help: exit %d\n%s", args, code, out)
		}
	}
	if code, out, _ := call(t.Context(), "--version"); code != 0 || !strings.HasPrefix(out, "netport-relay ") {
		t.Errorf("--version: exit %d, %q", code, out)
	}
}

func TestMistakesAreOneLineThatHelps(t *testing.T) {
	file := install(t)
	socket := filepath.Join(filepath.Dir(file), "relay.sock")
	broken := install(t)
	if err := os.WriteFile(broken, []byte("servers = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := install(t)
	key := filepath.Join(filepath.Dir(open), "key.pem")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status", "--config", file}, 1, "ask the daemon at " + socket + ": no daemon is running there"},
		{[]string{"status", "--config", file, "now"}, 2, `unexpected argument "now"`},
		{[]string{"run", "--config", "/nowhere/config.toml"}, 1, "/nowhere/config.toml: no such file or directory"},
		{[]string{"run", "--config", broken}, 1, broken + ":1:1: no server"},
		{[]string{"run", "--config", open}, 1, "key.pem"},
		{[]string{"start"}, 2, `unknown command "start"`},
	} {
		code, _, errs := call(t.Context(), c.args...)
		if code != c.code || !strings.HasPrefix(errs, "netport-relay: ") || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, want %d\n%s\nwant %q in it", c.args, code, c.code, errs, c.want)
		}
	}
}

func TestRelayRunsWithoutItsServerAndStops(t *testing.T) {
	file := install(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan string, 1)
	go func() {
		code, _, errs := call(ctx, "run", "--config", file)
		ended <- fmt.Sprintf("exit %d\n%s", code, errs)
	}()
	var out string
	for deadline := time.Now().Add(10 * time.Second); ; {
		code, text, errs := call(t.Context(), "status", "--json", "--config", file)
		if out = text; code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(errs)
		}
	}
	var s daemon.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Name != "relay-1" || s.Connected || s.Sessions == nil {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, out, _ := call(t.Context(), "status", "--config", file); !strings.Contains(out, "relay     relay-1 of example.org") || !strings.Contains(out, "server    not connected\n") || !strings.Contains(out, "mode      userspace (") || !strings.Contains(out, "tickets   refused") {
		t.Errorf("status:\n%s", out)
	}
	if code, _, errs := call(t.Context(), "run", "--config", file); code != 1 || !strings.Contains(errs, "relay.sock") {
		t.Errorf("a second relay on the same files: exit %d\n%s", code, errs)
	}
	cancel()
	if got := <-ended; !strings.HasPrefix(got, "exit 0\n") || !strings.Contains(got, "relay stopped") {
		t.Error(got)
	}
}

func TestStatusNamesTicketsForWhatTheyAre(t *testing.T) {
	var out bytes.Buffer
	until := time.Date(2026, 11, 23, 9, 5, 0, 0, time.Local)
	s := daemon.Status{Capacity: 10, Draining: true, Tickets: 1, TicketKeys: 1, TicketLegs: 2, Sessions: []daemon.Session{{Ticket: until}, {Opener: "ann", Peer: "bo"}}}
	if err := printStatus(&command.Page{Writer: &out, Wide: true}, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sessions  2 of 10, 0 bytes carried since the start, drains: it takes none any more\n",
		"tickets   1 sessions, 2 TCP legs waiting\n",
		"00000000  ticket  until Nov 23 09:05  shared",
		"00000000  ann     bo",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}
