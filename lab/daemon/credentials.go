package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/netport/netport/proto/identity"
)

// Credentials are those that the server has issued into a folder of User's, for the test
// itself to act as their holder.
func Credentials(t testing.TB, dir string, role identity.Role) *identity.Credentials {
	t.Helper()
	credentials, err := LoadCredentials(dir, role)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

// LoadCredentials returns those in a folder of User's. It reads a copy of the key, since
// none is read from where another user could replace it.
func LoadCredentials(dir string, role identity.Role) (*identity.Credentials, error) {
	own, err := os.MkdirTemp("", "netport-key-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(own)
	file := func(name string) string { return filepath.Join(dir, name) }
	key := filepath.Join(own, "key.pem")
	content, err := os.ReadFile(file("key.pem"))
	if err := errors.Join(err, os.WriteFile(key, content, 0o600)); err != nil {
		return nil, err
	}
	return identity.Load(file("cert.pem"), key, file("ca.pem"), role, nil)
}
