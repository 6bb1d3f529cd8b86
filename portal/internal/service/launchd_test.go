package service

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeCtl stands for launchctl: it notes what it is asked and knows what runs.
type fakeCtl struct {
	asked  []string
	loaded bool
	broken error // of bootstrap
}

func (f *fakeCtl) run(args ...string) (string, error) {
	f.asked = append(f.asked, strings.Join(args, " "))
	switch args[0] {
	case "bootstrap":
		if f.broken != nil {
			return "Bootstrap failed: 5: Input/output error\nTry re-running the command as root.", f.broken
		}
		f.loaded = true
	case "bootout", "print":
		if !f.loaded {
			return "Could not find service \"org.netport.portal\" in domain for system", errors.New("exit status 113")
		}
		f.loaded = args[0] == "print"
		return "system/org.netport.portal = {\n\tactive count = 1\n\tpath = /x\n\tstate = running\n\n\tpid = 4711\n\tlast exit code = (never exited)\n}\n", nil
	}
	return "", nil
}

func TestLaunchdRunsAPortalFromInstallToRemove(t *testing.T) {
	ctl := &fakeCtl{}
	l := &launchd{dir: filepath.Join(t.TempDir(), "LaunchDaemons"), domain: "system", owner: func(string) (string, error) { return "ann", nil }, ctl: ctl.run}
	status := func() string {
		t.Helper()
		s, err := l.Status()
		if err != nil {
			t.Fatal(err)
		}
		return s.Text
	}
	if got := status(); got != "not installed" {
		t.Errorf("before: %q", got)
	}
	if err := l.Remove(); err == nil || err.Error() != "it is not installed" {
		t.Errorf("remove what is not there: %v", err)
	}
	job := Job{Program: "/usr/local/bin/netport-portal", File: "/Library/Application Support/Netport/Portal/config.toml"}
	notes, err := l.Install(job)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "/Library/Application Support/Netport/Portal/portal.log") {
		t.Fatalf("install: %q, %v", notes, err)
	}
	if got := status(); got != "installed, and runs as process 4711" {
		t.Errorf("it runs: %q", got)
	}
	info, err := os.Stat(l.plist())
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("launchd reads only lists that others cannot write: %v, %v", info.Mode(), err)
	}
	ctl.loaded = false
	if got := status(); !strings.HasPrefix(got, "installed, but launchd does not know it: Could not find") {
		t.Errorf("stopped by hand: %q", got)
	}
	ctl.loaded = true
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != "not installed" || ctl.loaded {
		t.Errorf("removed: %q, still there: %t", got, ctl.loaded)
	}
	const target = "system/org.netport.portal"
	want := []string{"bootout " + target, "bootstrap system " + l.plist(), "print " + target, "print " + target, "bootout " + target, "print " + target}
	if diff := cmp.Diff(want, ctl.asked); diff != "" {
		t.Errorf("launchctl: %s", diff)
	}
	ctl.broken = errors.New("exit status 5")
	if _, err := l.Install(job); err == nil || err.Error() != "launchctl bootstrap: exit status 5: Bootstrap failed: 5: Input/output error" {
		t.Errorf("what launchctl refuses: %v", err)
	}
}

func TestPortalOfRootsConfigurationRunsAsRootAndSaysSo(t *testing.T) {
	l := &launchd{dir: t.TempDir(), domain: "system", owner: func(string) (string, error) { return "", nil }, ctl: (&fakeCtl{}).run}
	notes, err := l.Install(Job{Program: "/p", File: "/c/config.toml"})
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "runs as root") {
		t.Errorf("%q, %v", notes, err)
	}
	b, err := os.ReadFile(l.plist())
	if err != nil || strings.Contains(string(b), "UserName") {
		t.Errorf("the list names a user: %v\n%s", err, b)
	}
}

// words returns the texts of a property list in their order, which is an error where it is
// no XML.
func words(t *testing.T, list []byte) (words []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(string(list)))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return words
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, list)
		}
		if s, ok := token.(xml.CharData); ok && strings.TrimSpace(string(s)) != "" {
			words = append(words, string(s))
		}
	}
}

func TestPropertyListSaysWhatIsMeant(t *testing.T) {
	got := words(t, propertyList(Job{Program: "/opt/a & b/portal", File: "/c/<x>\"'.toml"}, "ann", "/c/portal.log"))
	want := []string{
		"Label", label, "ProgramArguments", "/opt/a & b/portal", "run", "--config", "/c/<x>\"'.toml", "UserName", "ann",
		"RunAtLoad", "KeepAlive", "ExitTimeOut", "90", "StandardErrorPath", "/c/portal.log",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
