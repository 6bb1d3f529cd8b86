//go:build unix

package folder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chain makes a file three folders below the test's own.
func chain(t *testing.T) (root, file string) {
	t.Helper()
	root = t.TempDir()
	file = filepath.Join(root, "a", "b", "c", "key.pem")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return root, file
}

func wantRefusal(t *testing.T, what string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// TestFoldersAboveAreNobodyElses: as with ssh's StrictModes.
func TestFoldersAboveAreNobodyElses(t *testing.T) {
	for _, c := range []struct {
		mode os.FileMode
		at   string // whose mode it is, below the test's folder
		want string // of the refusal
	}{
		{0o755, "a", ""},
		{0o700, "a/b/c", ""},
		{0o750, "a/b/c", ""},
		{0o777 | os.ModeSticky, "a", ""},     // as /tmp
		{0o777 | os.ModeSticky, "a/b/c", ""}, // as a volume of Kubernetes
		{0o777, "a", "others can write in the folder"},
		{0o702, "a/b", "others can write in the folder"},
		{0o777, "a/b/c", "others can write in the folder"},
	} {
		root, file := chain(t)
		if err := os.Chmod(filepath.Join(root, c.at), c.mode); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, c.at+" of mode "+c.mode.String(), CheckAbove(file), c.want)
		// A link in a good place to one in a bad place is no better.
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, "a link below "+c.at+" of mode "+c.mode.String(), CheckAbove(link), c.want)
		// Nor is a link in a bad place to a good file.
		_, good := chain(t)
		link = filepath.Join(filepath.Dir(file), "link")
		if err := os.Symlink(good, link); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, "a link in "+c.at+" of mode "+c.mode.String(), CheckAbove(link), c.want)
	}
}

func TestPrivateFolderIsNobodyElses(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o700: "", 0o755: "", 0o777: "chmod go-w", 0o720: "chmod go-w", 0o702: "chmod go-w", 0o777 | os.ModeSticky: "chmod go-w",
	} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, mode.String(), CheckPrivate(dir), want)
	}
}

func TestLinksInACircle(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(link, link); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a link to itself", CheckAbove(link), "too many symbolic links")
}

func TestWhatBelongsToOthersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not run as root")
		}
		t.Skip("needs root, to give a folder to somebody else")
	}
	const other = 65534
	for _, at := range []string{"a", "a/b", "a/b/c"} {
		root, file := chain(t)
		if err := os.Chown(filepath.Join(root, at), other, other); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, at, CheckAbove(file), "belongs to user 65534")
	}
	root, file := chain(t)
	if err := os.Chown(filepath.Join(root, "a/b"), 0, other); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "a/b"), 0o775); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a group that others are in", CheckAbove(file), "others can write in the folder")
	dir := t.TempDir()
	if err := os.Chown(dir, other, other); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a private folder", CheckPrivate(dir), "belongs to user 65534")

	// In a sticky folder another user may put a link beside our files.
	_, file = chain(t)
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(shared, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a link of ours", CheckAbove(link), "")
	if err := os.Lchown(link, other, other); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a link of another's", CheckAbove(link), "belongs to user 65534, who can have it lead elsewhere")

	// Nor may such a link stand further up.
	way := filepath.Join(shared, "way")
	if err := os.Symlink(filepath.Dir(file), way); err != nil {
		t.Fatal(err)
	}
	behind := filepath.Join(way, filepath.Base(file))
	wantRefusal(t, "behind a link of ours", CheckAbove(behind), "")
	if err := os.Lchown(way, other, other); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "behind a link of another's", CheckAbove(behind), "the link "+way+" belongs to user 65534")
}
