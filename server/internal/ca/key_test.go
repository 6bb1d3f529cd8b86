package ca

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/proto/identity"
)

// secret writes a file for its owner alone.
func secret(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// openssl runs the program that operators use beside ours.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestEncryptedKeyIsReadByUsAndByOpenSSL(t *testing.T) {
	a, pass := authority(t), secret(t, "correct horse\n")
	file := filepath.Join(t.TempDir(), "ca.key")
	if err := SaveKey(file, a.Key(), pass); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(b), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n") {
		t.Fatalf("%q, %v", b, err)
	}
	key, err := LoadKey(file, pass)
	if err != nil || !samePublic(key.Public(), a.Key().Public()) {
		t.Fatalf("another key was read, or none: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "plain.key")
	openssl(t, "pkey", "-in", file, "-passin", "file:"+pass, "-out", plain)
	if err := os.Chmod(plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err = LoadKey(plain, ""); err != nil || !samePublic(key.Public(), a.Key().Public()) {
		t.Fatalf("openssl read another key, or none: %v", err)
	}
	theirs := filepath.Join(t.TempDir(), "theirs.key")
	openssl(t, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", plain, "-passout", "file:"+pass, "-out", theirs)
	if err := os.Chmod(theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err = LoadKey(theirs, pass); err != nil || !samePublic(key.Public(), a.Key().Public()) {
		t.Errorf("what openssl encrypted: %v", err)
	}
	if _, err := identity.LoadKey(file); err == nil {
		t.Error("an encrypted key is read without its passphrase")
	}
	for what, c := range map[string]struct{ file, pass, want string }{
		"no passphrase":          {file, "", "ca_passphrase_file"},
		"a wrong passphrase":     {file, secret(t, "wrong"), "incorrect password"},
		"an empty passphrase":    {file, secret(t, "\n"), "must be one line"},
		"two lines":              {file, secret(t, "correct horse\nbattery\n"), "must be one line"},
		"a passphrase that is a": {file, t.TempDir(), "not a regular file"},
		"a broken key":           {secret(t, strings.Replace(string(b), "M", "N", 1)), pass, "read key"},
		"a key that is cut":      {secret(t, string(b[:200])), pass, "read key"},
		"something behind it":    {secret(t, string(b)+"x"), pass, "something follows"},
	} {
		if _, err := LoadKey(c.file, c.pass); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "correct horse") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	if err := os.Chmod(pass, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file, pass); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a passphrase that others can read: %v", err)
	}
}
