package joining

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
)

// TestJoiningIsResumedAfterAKillAtAnyMoment kills join again and again, a little later each time, until it has come to
// its end: it is given again each time with the same token, and nothing is cleaned up by hand. It ends by being killed, or
// well.
func TestJoiningIsResumedAfterAKillAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	token := w.invite("portal", "ann")
	var key []byte
	kills := 0
	for delay := time.Duration(0); ; delay += max(time.Millisecond, delay/20) {
		cmd := w.command("portal", "join", "--config", w.config("ann"))
		cmd.Stdin = strings.NewReader(token)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await.Passing(t, delay+rand.N(time.Millisecond))
		cmd.Process.Kill()
		err := cmd.End()
		if err != nil && cmd.ProcessState.Exited() {
			t.Fatalf("given again after %d kills, the last %v after its start: %v: %s", kills, delay, err, &said)
		}
		b, rerr := os.ReadFile(filepath.Join(w.folder("ann"), "key.pem"))
		switch {
		case rerr != nil && (key != nil || !os.IsNotExist(rerr)):
			t.Fatal(rerr)
		case key == nil:
			key = b
		case !bytes.Equal(key, b):
			t.Fatalf("another key after %v", delay)
		}
		if err == nil {
			break
		}
		if kills++; delay > 5*time.Second {
			t.Fatal("join does not end")
		}
	}
	t.Logf("killed %d times", kills)
	if err := w.join("portal", "ann", token); err != nil {
		t.Errorf("given again after its end: %v", err)
	}
	w.start("portal", "ann").waitLog("connected to server")
	err := filepath.WalkDir(w.folder("ann"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file that was there while it was written
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 && (d.IsDir() || strings.Contains(path, "key.pem")) {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTokensAreRefusedWhereTheyLeakOrAreWrong: on the command line, in a file that others can read, torn, for another
// role, of another server, used by somebody else.
func TestTokensAreRefusedWhereTheyLeakOrAreWrong(t *testing.T) {
	w := newWorld(t)
	token := w.invite("portal", "ann")
	open := filepath.Join(w.dir, "open")
	if err := os.WriteFile(open, []byte(token), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chmod(open, 0o644)
	nowhere := w.folder("nowhere")
	for _, tt := range []struct {
		name, role, stdin, want string
		args                    []string
	}{
		{"on the command line", "portal", "", "command line", []string{token}},
		{"as a flag", "portal", "", "command line", []string{"--token", token}},
		{"in a file that others can read", "portal", "", "chmod 600", []string{"--token", open}},
		{"torn", "portal", token[:len(token)-9], "not whole", nil},
		{"nothing", "portal", "", "none", nil},
		{"for another role", "relay", token, "netport-portal", nil},
	} {
		err := w.try(tt.role, strings.NewReader(tt.stdin), append([]string{"join", "--config", filepath.Join(nowhere, "config.toml")}, tt.args...)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
			continue
		}
		if said := strings.ReplaceAll(err.Error(), strings.Join(tt.args, " "), ""); strings.Contains(said, token[20:60]) {
			t.Errorf("%s: the token was repeated: %s", tt.name, said)
		}
		if _, err := os.Stat(nowhere); err == nil {
			t.Errorf("%s: something was written", tt.name)
		}
	}
	if err := w.join("portal", "ann", token); err != nil {
		t.Fatal(err)
	}
	if err := w.join("portal", "thief", token); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("a token was used by two: %v", err)
	}
}

// TestServerUnderAnotherAuthorityGetsNoToken has somebody else in the server's place, with an authority of the same names.
func TestServerUnderAnotherAuthorityGetsNoToken(t *testing.T) {
	w := newWorld(t)
	token := w.invite("portal", "ann")
	w.server.stop()
	w.run("server", nil, "init", "--dir", w.folder("impostor"), "--domain", domain, "--address", w.address)
	w.startServer("impostor")
	err := w.join("portal", "ann", token)
	if err == nil || !strings.Contains(err.Error(), "not under the authority") {
		t.Errorf("join: %v", err)
	}
	if out := w.run("server", nil, "audit", "--json", "--config", w.config("impostor")); strings.Contains(out, "ann") {
		t.Errorf("the impostor has heard of the name: %s", out)
	}
	w.server.stop()
	w.startServer("server")
	if err := w.join("portal", "ann", token); err != nil {
		t.Errorf("at the right server: %v", err)
	}
}

// TestJoiningWaitsForApproval shows the fingerprint of the key, goes on waiting while the server is restarted, and is
// over when an operator has approved.
func TestJoiningWaitsForApproval(t *testing.T) {
	w := newWorld(t)
	token := w.invite("portal", "plc", "--approve")
	cmd := w.command("portal", "join", "--config", w.config("plc"))
	cmd.Stdin = strings.NewReader(token)
	p := w.launch("join", cmd)
	p.waitLog("Waiting for an operator")
	await.Until(t, "the request is pending", func() error {
		if out := w.ask("enrolments"); !strings.Contains(out, "plc") {
			return fmt.Errorf("enrolments says %s", out)
		}
		return nil
	})
	w.server.stop()
	w.startServer("server")
	select {
	case <-p.done:
		t.Fatalf("join ended before it was approved: %v", p.err)
	default:
	}
	_, shown, _ := strings.Cut(p.text(), "key is\n  ")
	w.ask("enrolments", "approve", strings.Fields(shown)[0])
	if err := p.wait(); err != nil {
		t.Fatalf("after the approval: %v\n%s", err, p.text())
	}
	if n := strings.Count(p.text(), "Waiting for"); n != 1 {
		t.Errorf("it said %d times that it waits", n)
	}
}
