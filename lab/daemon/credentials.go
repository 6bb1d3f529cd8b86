package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/netport/netport/proto/identity"
)

// Credentials are those that the server has issued into a folder of User's, for the test itself to act as their holder. It
// reads a copy of the key, since none is read from where another user could replace it.
func Credentials(t testing.TB, dir string, role identity.Role) *identity.Credentials {
	t.Helper()
	file := func(name string) string { return filepath.Join(dir, name) }
	key := filepath.Join(t.TempDir(), "key.pem")
	content, err := os.ReadFile(file("key.pem"))
	if err := errors.Join(err, os.WriteFile(key, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	credentials, err := identity.Load(file("cert.pem"), key, file("ca.pem"), role, nil)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}
