package folder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// needLists skips where the system is Wine: it keeps the modes of Unix, and of a list that
// is set afterwards only what they can say.
func needLists(t *testing.T) {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("needs Windows: Wine keeps no access control lists")
	}
}

// openToAll gives a file or folder a list by which everybody may do everything.
func openToAll(t *testing.T, path string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;WD)")
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := setList(path, list, windows.PROTECTED_DACL_SECURITY_INFORMATION); err != nil {
		t.Fatal(err)
	}
}

// public returns a folder in which everybody may do everything.
func public(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	openToAll(t, dir)
	return dir
}

func TestFilesForOneUserAreHisWhereverTheyAreMade(t *testing.T) {
	dir := public(t)
	key := filepath.Join(dir, "key.pem")
	f, err := Create(key, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := refuse(key, toUse, "can use", ""); err != nil {
		t.Error(err)
	}
}

func TestKeysThatOthersMayUseAreRefused(t *testing.T) {
	needLists(t)
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openToAll(t, key)
	if err := CheckSecret(key, nil); err == nil || !strings.Contains(err.Error(), "can use "+key) || !strings.Contains(err.Error(), "icacls") {
		t.Errorf("a key that everybody reads: %v", err)
	}
	if err := Restrict(key); err != nil {
		t.Fatal(err)
	}
	if err := CheckSecret(key, nil); err != nil {
		t.Error(err)
	}
}

func TestFoldersForOneUserKeepWhatIsMadeInThem(t *testing.T) {
	needLists(t)
	dir := filepath.Join(public(t), "portal", "state")
	if err := CheckPrivate(filepath.Dir(filepath.Dir(dir))); err == nil || !strings.Contains(err.Error(), "can write in the folder") {
		t.Errorf("a folder that everybody writes in: %v", err)
	}
	if err := Make(dir); err != nil {
		t.Fatal(err)
	}
	if err := Make(dir); err != nil {
		t.Errorf("it is there: %v", err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := checkOwn(d, nil); err != nil {
			t.Error(err)
		}
	}
	if !guarded(dir) {
		t.Error("what is made in the folder is not kept from others")
	}
	file := filepath.Join(dir, "a")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := refuse(file, toUse, "can use", ""); err != nil {
		t.Error(err)
	}
	if err := CheckPrivate(dir); err == nil || !strings.Contains(err.Error(), "can replace what is in the folder") {
		t.Errorf("it is in a folder that everybody rules: %v", err)
	}
}

func TestServiceGetsAFolderAndWhatIsInIt(t *testing.T) {
	needLists(t)
	dir := filepath.Join(t.TempDir(), "portal")
	if err := Make(dir); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key.pem")
	f, err := Create(key, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := ForService(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, key} {
		s, err := securityOf(path)
		if err != nil {
			t.Fatal(err)
		}
		may := false
		for _, a := range s.allows {
			may = may || a.sid == serviceSID(Service) && a.mask&toUse != 0
		}
		if !may {
			t.Errorf("the service may not use %s: %+v", path, s.allows)
		}
		if err := refuse(path, toUse, "can use", ""); err != nil {
			t.Error(err)
		}
	}
}
