package joining

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/proto/invite"
)

// forms are the ways in which a token's secret could stand somewhere.
func forms(t *testing.T, token string) (list [][]byte) {
	t.Helper()
	parsed, err := invite.Parse([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	secret := parsed.Secret[:]
	for _, text := range []string{
		token, token[len(token)-24:], hex.EncodeToString(secret),
		base64.StdEncoding.EncodeToString(secret)[:40], base64.URLEncoding.EncodeToString(secret)[:40],
		string(secret), string(secret[:16]), string(secret[16:]),
	} {
		list = append(list, []byte(text))
	}
	return list
}

// wantNot wants that a text holds none of the forms of a secret.
func wantNot(t *testing.T, where string, b []byte, secret [][]byte) {
	t.Helper()
	for _, form := range secret {
		if bytes.Contains(b, form) || bytes.Contains(bytes.ToLower(b), form) {
			t.Errorf("%s holds the token's secret", where)
			return
		}
	}
}

// TestTokenIsNowhereElse: while a device waits and when it has joined, its token is in no command line, environment, log or
// file of either side (T25). That no other program of the same user reads it out of the memory is in
// TestProcessesCannotBeReadByTheirUser.
func TestTokenIsNowhereElse(t *testing.T) {
	w := newWorld(t, daemon.Set("log_level", "debug"))
	token := w.invite("portal", "plc", "--approve")
	secret := forms(t, token)
	cmd := w.command("portal", "join", "--config", w.config("plc"))
	cmd.Stdin = strings.NewReader(token)
	p := w.launch("join", cmd)
	p.waitLog("Waiting for an operator")
	look := func() {
		t.Helper()
		for _, process := range []*program{p, w.server} {
			pid := process.cmd.Process.Pid
			for _, name := range []string{"cmdline", "environ"} {
				file := fmt.Sprintf("/proc/%d/%s", pid, name)
				b, err := os.ReadFile(file)
				if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) { // its user may not, or it has ended
					t.Error(err)
				}
				wantNot(t, file, b, secret)
			}
			wantNot(t, "what "+process.name+" says", []byte(process.text()), secret)
		}
		files := w.filesOf(w.dir)
		for file, b := range files {
			wantNot(t, file, b, secret)
		}
		// It is looked in the right place: the state has what of the token is no secret.
		parsed, err := invite.Parse([]byte(token))
		if err != nil {
			t.Fatal(err)
		}
		id, err := parsed.ID.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(files[filepath.Join(w.folder("server"), "state.db")], id) {
			t.Error("the state knows nothing of the token")
		}
	}
	look()
	_, shown, _ := strings.Cut(p.text(), "key is\n  ")
	w.ask("enrolments", "approve", strings.Fields(shown)[0])
	if err := p.wait(); err != nil {
		t.Fatal(err)
	}
	look()
	// What is refused is not repeated either.
	for _, bad := range []string{token + "x", token[:len(token)-1], strings.ToUpper(token), token} {
		cmd := w.command("portal", "join", "--config", w.config("other"))
		cmd.Stdin = strings.NewReader(bad)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Error("joined with a used token")
		}
		wantNot(t, "the refusal", out, secret[1:])
	}
	look()
	w.server.stop()
	look()
}

// filesOf returns all regular files below a folder but programs.
func (w *world) filesOf(dir string) map[string][]byte {
	w.t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // while it was written
		}
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "netport-") {
			return err
		}
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files[file] = b
		return err
	})
	if err != nil || len(files) < 5 {
		w.t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

// TestTokenIsInNoCoreFile: a joining device that is killed while it holds the token leaves no core file, though the system
// would write one, and what it says at its end has no part of it (T25).
func TestTokenIsInNoCoreFile(t *testing.T) {
	need.Root(t) // to let programs leave core files
	raiseCoreLimit(t)
	w := newWorldOf(t, nil, []string{"GOTRACEBACK=crash"})
	token := w.invite("portal", "plc", "--approve")
	cmd := w.command("portal", "join", "--config", w.config("plc"))
	cmd.Stdin = strings.NewReader(token)
	p := w.launch("join", cmd)
	p.waitLog("Waiting for an operator")
	p.cmd.Process.Signal(syscall.SIGQUIT)
	p.wait() // it fails
	if dumped(p.cmd) {
		t.Error("it has left a core file")
	}
	said := p.text()
	if !strings.Contains(said, "goroutine") {
		t.Errorf("it said nothing of its goroutines: %q", said)
	}
	wantNot(t, "its last words", []byte(said), forms(t, token))
	parsed, err := invite.Parse([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(parsed.Secret) - 7 { // as numbers of 8 bytes, which traces show
		word := parsed.Secret[i : i+8]
		back := []byte{word[7], word[6], word[5], word[4], word[3], word[2], word[1], word[0]}
		for _, b := range [][]byte{word, back} {
			if strings.Contains(said, hex.EncodeToString(b)) {
				t.Error("its last words hold a part of the secret")
			}
		}
	}
	if list, err := filepath.Glob(filepath.Join(w.dir, "core*")); err != nil || len(list) > 0 {
		t.Errorf("core files: %v, %v", list, err)
	}
	await.Until(t, "the server goes on", func() error { return w.try("server", nil, "status", "--config", w.config("server")) })
}
