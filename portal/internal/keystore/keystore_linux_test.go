package keystore

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netport/netport/portal/internal/keystore/tpm"
	"github.com/netport/netport/portal/internal/keystore/tpm/tpmtest"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

func block(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, %v", file, info.Mode(), err)
	}
	b, _ := pem.Decode(text)
	return b.Type
}

func TestKeyIsFoundWhereItWasMade(t *testing.T) {
	soft := tpmtest.New(t)
	for _, tt := range []struct{ place, block string }{{InFile, "PRIVATE KEY"}, {InTPM, tpm.BlockType}} {
		file := filepath.Join(t.TempDir(), "key.pem")
		made := &Store{Place: tt.place, TPM: soft.Path}
		key, err := made.Make(file, "")
		if err != nil {
			t.Fatal(err)
		}
		if is := block(t, file); is != tt.block {
			t.Errorf("made in %s, the file is %q", tt.place, is)
		}
		s := &Store{TPM: soft.Path} // of a daemon
		found, err := s.Load(file)
		if err != nil || identity.HashPublic(found.Public()) != identity.HashPublic(key.Public()) {
			t.Errorf("made in %s: found %v, %v", tt.place, found, err)
		}
		next, err := s.Make(file+".next", file)
		if err != nil || identity.HashPublic(next.Public()) == identity.HashPublic(key.Public()) {
			t.Errorf("the next key of one in %s: %v", tt.place, err)
		}
		if is := block(t, file+".next"); is != tt.block {
			t.Errorf("the next key of one in %s: the file is %q", tt.place, is)
		}
		if err := s.Discard(file); err != nil {
			t.Error(err)
		}
		digest := sha256.Sum256(nil)
		if _, err := found.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Errorf("in %s: %v", tt.place, err)
		}
	}
}

// TestCertificatesAreForKeysInTheTPM has the rest of Netport use such a key: a request for
// a certificate, and credentials.
func TestCertificatesAreForKeysInTheTPM(t *testing.T) {
	soft := tpmtest.New(t)
	ca := identitytest.New(t)
	dir := ca.Enrol(identity.Portal, "ann")
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Remove(in("key.pem")); err != nil {
		t.Fatal(err)
	}
	key, err := (&Store{Place: InTPM, TPM: soft.Path}).Make(in("key.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	old, err := identity.LoadCertificates(in("cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.FromCertificate(old[0])
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewRequest(id, key)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := identity.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{ca.Issue(asked.ID, asked.Public)}
	if err := identity.ReplaceFile(in("cert.pem"), identity.EncodeCertificates(chain...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := identity.LoadWith(&Store{TPM: soft.Path}, in("cert.pem"), in("key.pem"), in("ca.pem"), identity.Portal, nil)
	if err != nil || c.Key() != identity.HashPublic(key.Public()) {
		t.Errorf("the credentials: %v", err)
	}
}

func TestKeysAreNotWhereTheyWereNotMade(t *testing.T) {
	soft := tpmtest.New(t)
	file := filepath.Join(t.TempDir(), "key.pem")
	if _, err := (&Store{}).Make(file, ""); err != nil {
		t.Fatal(err)
	}
	_, err := (&Store{Place: InTPM, TPM: soft.Path}).Load(file)
	if err == nil || !strings.Contains(err.Error(), "its key is in the file, not in a TPM: move it away") {
		t.Errorf("join --key tpm would take a key in a file: %v", err)
	}
	if _, err := (&Store{Place: InTPM, TPM: soft.Path}).Make(file, ""); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a file is overwritten: %v", err)
	}
	for place, want := range map[string]string{
		"tpm2": `"file", "tpm"`, "": `"file", "tpm"`,
		"pkcs11:token=a": "names no key",
	} {
		if err := CheckPlace(place); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--key %q: %v, want %q", place, err, want)
		}
	}
	for _, place := range []string{InFile, InTPM, "pkcs11:token=a;object=b?module-path=/m.so"} {
		if err := CheckPlace(place); err != nil {
			t.Errorf("--key %q: %v", place, err)
		}
	}
}
