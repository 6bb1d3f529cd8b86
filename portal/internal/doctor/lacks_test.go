package doctor

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the root of the tree, seen from here.
const root = "../../.."

// alike are the files for Linux whose work other systems do in another file, or have no
// need of, and why.
var alike = map[string]string{
	"portal/internal/carrier/carriertest/pump.go":            "for tests",
	"proto/folder/owner_linux.go":                            "on Windows what is made takes over its folder's list; macOS is in the list",
	"portal/internal/carrier/rawio/readv_linux.go":           "one call instead of two: only time",
	"portal/internal/carrier/rawio/rawio_unix.go":            "macOS has it; Windows is in the list",
	"portal/internal/cli/service_other.go":                   "packages bring systemd's units",
	"portal/internal/config/default_other.go":                "each has its own folder",
	"portal/internal/doctor/system_linux.go":                 "this list",
	"portal/internal/entry/owner_unix.go":                    "access control lists",
	"portal/internal/exit/errno_unix.go":                     "errno_windows.go",
	"portal/internal/exit/linger_unix.go":                    "linger_windows.go",
	"portal/internal/network/networktest/namespace_linux.go": "for tests",
	"portal/internal/path/direct/reuse_unix.go":              "reuse_other.go",
	"portal/internal/path/packet/broadcast_unix.go":          "broadcast_windows.go",
	"portal/internal/path/packet/errno_unix.go":              "errno_windows.go",
	"proto/command/commandtest/help_unix.go":                 "for tests",
	"proto/command/guard_files_unix.go":                      "access control lists",
	"proto/command/journal_linux.go":                         "the event log of Windows; launchd has no journal",
	"proto/folder/folder_unix.go":                            "access_windows.go",
	"proto/folder/make_unix.go":                              "make_windows.go",
	"proto/handover/handover.go":                             "for servers and relays",
	"proto/handover/trouble.go":                              "for servers and relays",
	"proto/identity/secret_unix.go":                          "Windows has no pipes among its files",
	"proto/local/peer_cred.go":                               "the socket's access control list",
	"proto/local/peer_linux.go":                              "peer_darwin.go; the socket's access control list",
	"proto/local/peer_unix.go":                               "peer_windows.go",
	"proto/privilege/keep_linux.go":                          "only Linux has capabilities",
	"proto/privilege/threads_linux.go":                       "only Linux has capabilities",
	"proto/reserve/limit_unix.go":                            "Windows has no such limit",
	"proto/reserve/reservetest/limit.go":                     "for tests",
	"proto/supervise/listeners.go":                           "for the server",
	"proto/supervise/systemd.go":                             "scm_windows.go; launchd is told nothing",
}

// onlyHere returns the files that are built for Linux and not for another system.
func onlyHere(t *testing.T, system string) (files []string) {
	t.Helper()
	here, there := build.Default, build.Default
	here.GOOS, there.GOOS = "linux", system
	here.CgoEnabled, there.CgoEnabled = false, false
	for _, module := range []string{"portal", "proto"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, name := filepath.Split(path)
			mine, err := here.MatchFile(dir, name)
			if err != nil || !mine {
				return err
			}
			if theirs, err := there.MatchFile(dir, name); err != nil || theirs {
				return err
			}
			rel, err := filepath.Rel(root, path)
			files = append(files, filepath.ToSlash(rel))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 10 {
		t.Fatalf("found only %q", files)
	}
	return files
}

// TestNothingIsMissingElsewhereWithoutAWord: whoever writes a file that only Linux has says
// in the list what other systems do without it.
func TestNothingIsMissingElsewhereWithoutAWord(t *testing.T) {
	for _, system := range []string{"windows", "darwin"} {
		said := make(map[string]bool)
		for _, l := range lacks {
			if slices.Contains(missing(system), l.text) {
				for _, f := range l.files {
					said[f] = true
				}
			}
		}
		found := onlyHere(t, system)
		for _, f := range found {
			if !said[f] && alike[f] == "" {
				t.Errorf("%s is not built for %s: say in lacks.go what is missing there", f, system)
			}
		}
		for f := range said {
			if !slices.Contains(found, f) {
				t.Errorf("%s lacks nothing of %s, which is built for it or is not there", system, f)
			}
		}
	}
	if got := missing("linux"); got != nil {
		t.Errorf("on Linux there is missing %q", got)
	}
}

// TestReadmeHasTheSameList holds it to the same words.
func TestReadmeHasTheSameList(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	mark := map[bool]string{true: "x", false: " "}
	for _, l := range lacks {
		if line := "| " + l.text + " | " + mark[l.windows] + " | " + mark[l.macOS] + " |\n"; !strings.Contains(readme, line) {
			t.Errorf("the README lacks the line\n%s", line)
		}
	}
}
