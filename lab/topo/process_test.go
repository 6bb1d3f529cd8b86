package topo_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

func TestProgramRunsOnItsHost(t *testing.T) {
	l := topo.New(t)
	home := l.Router("home", topo.PortRestricted)
	alice, bob := home.Host("alice"), home.Host("bob")

	t.Run("in its network", func(t *testing.T) {
		if got, want := strings.TrimSpace(alice.Run("hostname", "-I")), alice.Addr().String(); !strings.HasPrefix(got, want) {
			t.Errorf("addresses %q, want %v", got, want)
		}
	})
	t.Run("as another user", func(t *testing.T) {
		dir := alice.DirOf("nobody")
		cmd := alice.Command("sh", "-c", "id -un; grep CapEff /proc/self/status; echo mine > file; cat file").As("nobody")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if got, want := strings.Join(strings.Fields(string(out)), " "), "nobody CapEff: 0000000000000000 mine"; got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if out, err := bob.Command("ls", dir).As("daemon").CombinedOutput(); err == nil {
			t.Errorf("another user reads the directory: %s", out)
		}
	})
	t.Run("with its own view of files", func(t *testing.T) {
		before, err := os.ReadFile("/etc/hosts")
		if err != nil {
			t.Fatal(err)
		}
		alice.ShowFile("/etc/hosts", "192.0.2.53 shown\n")
		alice.Run("sh", "-c", "echo alice > /run/secret")
		if got := alice.Run("cat", "/etc/hosts", "/run/secret"); got != "192.0.2.53 shown\nalice\n" {
			t.Errorf("alice sees %q", got)
		}
		if got := bob.Run("sh", "-c", "cat /etc/hosts; ls /run"); got != string(before) {
			t.Errorf("bob sees %q, want %q", got, before)
		}
		if after, err := os.ReadFile("/etc/hosts"); string(after) != string(before) || err != nil {
			t.Errorf("the machine sees %q, %v", after, err)
		}
	})
	t.Run("with input, environment and a failure", func(t *testing.T) {
		cmd := bob.Command("sh", "-c", `cat; echo $WORD; echo trouble >&2; exit 3`)
		cmd.Stdin, cmd.Env = strings.NewReader("input\n"), append(os.Environ(), "WORD=spoken")
		out, err := cmd.Output()
		if string(out) != "input\nspoken\n" || err == nil || cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("got %q, %v", out, err)
		}
	})
}

// One that goes on for too long is killed, though a child of it goes on and has the output open.
func TestProgramThatDoesNotEndIsKilled(t *testing.T) {
	cmd := topo.Here("sh", "-c", "sleep 5 & echo begun; wait")
	cmd.Limit = 500 * time.Millisecond
	begin := time.Now()
	out, err := cmd.Output()
	if err == nil || !strings.Contains(err.Error(), "not over within 500ms, and killed") || string(out) != "begun\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestProcessLogSignalsAndStatus(t *testing.T) {
	l := topo.New(t)
	host := l.Public("host")
	t.Run("stops when asked", func(t *testing.T) {
		// A shell traps nothing that was ignored when it began, as SIGHUP is under nohup.
		p := host.Start(host.Command("sh", "-c", `sleep 1000 & trap 'echo going; kill $!; exit 7' TERM; trap 'echo again' USR1; echo ready 1>&2; while :; do wait; done`))
		if got := p.WaitLog("eady"); got != "ready" {
			t.Errorf("waited for the line %q", got)
		}
		for range 2 {
			mark := p.Mark()
			p.Signal(syscall.SIGUSR1)
			p.WaitLogAfter(mark, "again")
		}
		if got := p.Stop(); got != 7 {
			t.Errorf("exit status %d, want 7", got)
		}
		if got, want := p.Log(), "ready\nagain\nagain\ngoing\n"; got != want {
			t.Errorf("log %q, want %q", got, want)
		}
	})
	t.Run("is killed", func(t *testing.T) {
		p := host.Start(host.Command("sleep", "1000"))
		p.Kill()
		if got := p.Wait(); got != -1 {
			t.Errorf("exit status %d, want -1", got)
		}
	})
	t.Run("ends by itself", func(t *testing.T) {
		p := host.Start(host.Command("sh", "-c", "echo last words; exit 4"))
		if got := p.Wait(); got != 4 {
			t.Errorf("exit status %d, want 4", got)
		}
		p.WaitLog("last words")
	})
}

// refusal runs f as a test of its own would run and returns what ended it, or "".
func refusal(t *testing.T, f func(t testing.TB)) string {
	t.Helper()
	r := &refusing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.message
}

// refusing is a test that only notes how it was ended.
type refusing struct {
	testing.TB
	message string
}

func (r *refusing) Fatal(args ...any) {
	r.message = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *refusing) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestMistakesEndTheTestWithTheirReason(t *testing.T) {
	need.Root(t)
	for name, tt := range map[string]struct {
		mistake func(l *topo.Lab)
		want    string
	}{
		"one name twice":        {func(l *topo.Lab) { l.Public("a"); l.Public("a") }, `add node "a": there is one already`},
		"a name for no device":  {func(l *topo.Lab) { l.Public("far-too-long-a-name") }, "want a name of 1 to 15"},
		"a program that fails":  {func(l *topo.Lab) { l.Public("a").Run("sh", "-c", "echo why >&2; exit 1") }, "why"},
		"no such program":       {func(l *topo.Lab) { l.Public("a").Run("no-such-program") }, "not found"},
		"a line never logged":   {func(l *topo.Lab) { h := l.Public("a"); h.Start(h.Command("echo", "other")).WaitLog("line") }, `never logged "line"`},
		"no emulated link":      {func(l *topo.Lab) { l.Public("a").Reshape(link.Shape{}, link.Shape{}) }, "no emulated link"},
		"an address elsewhere":  {func(l *topo.Lab) { l.Router("r").Host("a", topo.At("10.9.9.9")) }, "no address 10.9.9.9"},
		"a NAT of no behaviour": {func(l *topo.Lab) { l.Router("r", topo.NAT{}) }, "no mapping behaviour"},
	} {
		t.Run(name, func(t *testing.T) {
			got := refusal(t, func(t testing.TB) { tt.mistake(topo.New(t)) })
			if !strings.Contains(got, tt.want) {
				t.Errorf("ended with %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStaleDirectoryOfAKilledRunIsRemoved(t *testing.T) {
	const noProcess = 1 << 30
	stale := filepath.Join(os.TempDir(), fmt.Sprintf("netport-lab-%d-1", noProcess))
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	topo.New(t)
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", stale, err)
	}
}
