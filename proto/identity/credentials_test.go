package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// files holds a set of credentials on disk.
type files struct{ dir, cert, key, ca string }

func writeFiles(t testing.TB, chain []*x509.Certificate, h holder, cas ...*x509.Certificate) files {
	t.Helper()
	dir := t.TempDir()
	f := files{dir, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
	if err := SaveKey(f.key, h.key); err != nil {
		t.Fatal(err)
	}
	write(t, f.cert, EncodeCertificates(chain...), 0o644)
	write(t, f.ca, EncodeCertificates(cas...), 0o644)
	return f
}

func write(t testing.TB, file string, b []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(file, b, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func (f files) load(role Role) (*Credentials, error) {
	return Load(f.cert, f.key, f.ca, role, testClock)
}

func keyPEM(t testing.TB, h holder) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func samePublic(a, b crypto.Signer) bool {
	return a.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(b.Public())
}

// wantError checks that err is one short line that holds all of parts.
func wantError(t testing.TB, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: accepted, want an error with %q", what, parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q, want it to have %q", what, err, part)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1024 {
		t.Errorf("%s: error of %d bytes is not one short line: %.200q", what, len(err.Error()), err)
	}
}

func TestCredentialsAreLoaded(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	middle := newCA(t, &ca, "Middle", nil)
	p := newLeaf(t, &middle, Portal, "p", nil)
	f := writeFiles(t, p.with(middle), p, ca.cert)
	c, err := f.load(Portal)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ID{"example.org", Portal, "p"}); c.ID != want || len(c.Certificate().Certificate) != 2 || !c.Leaf().Equal(p.cert) || c.Key() != HashKey(p.cert) || !c.Now().Equal(testNow) {
		t.Errorf("loaded %v with %d certificates", c.ID, len(c.Certificate().Certificate))
	}
	if !samePublic(c.Certificate().PrivateKey.(crypto.Signer), p.key) {
		t.Error("another private key was loaded")
	}
}

func TestMismatchedCredentialsAreRefused(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p, q := newLeaf(t, &ca, Portal, "p", nil), newLeaf(t, &ca, Portal, "q", nil)

	f := writeFiles(t, p.with(), q, ca.cert)
	_, err := f.load(Portal)
	wantError(t, "another's key", err, f.cert, "not the one of this certificate")

	f = writeFiles(t, p.with(), p, ca.cert)
	_, err = f.load(Relay)
	wantError(t, "another role", err, f.cert, "a relay's is needed")

	_, err = Load(filepath.Join(f.dir, "none.pem"), f.key, f.ca, Portal, testClock)
	wantError(t, "no certificate", err, "none.pem", "no such file")

	f = writeFiles(t, ca.with(), ca, ca.cert)
	_, err = f.load(Portal)
	wantError(t, "a CA as certificate", err, f.cert, "no identity")
}

// TestKeyFiles has what may stand where a key should (B75). That the table
// ends at all shows that none of it makes the program wait.
func TestKeyFiles(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	p := newLeaf(t, &ca, Portal, "p", nil)
	good := keyPEM(t, p)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	key := write(t, at("key.pem"), good, 0o600)
	link := at("link")
	if err := os.Symlink(key, link); err != nil {
		t.Fatal(err)
	}
	open := write(t, at("open.pem"), good, 0o644)
	linkToOpen := at("linkToOpen")
	if err := os.Symlink(open, linkToOpen); err != nil {
		t.Fatal(err)
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	for _, tt := range []struct {
		name, file string
		want       string // of the refusal; empty: accepted
	}{
		{"good", key, ""},
		{"mode 0400", write(t, at("0400"), good, 0o400), ""},
		{"text before the block", write(t, at("text"), append([]byte("a key\n"), good...), 0o600), ""},
		{"link to a good key", link, ""},
		{"missing", at("none"), "no such file"},
		{"directory", dir, "not a regular file"},
		{"/dev/zero", "/dev/zero", "not a regular file"},
		{"empty", write(t, at("empty"), nil, 0o600), "no PEM block"},
		{"mode 0644", open, "run: chmod 600 " + open},
		{"mode 0640", write(t, at("0640"), good, 0o640), "chmod 600"},
		{"mode 0602", write(t, at("0602"), good, 0o602), "chmod 600"},
		{"link to mode 0644", linkToOpen, "chmod 600"},
		{"encrypted", write(t, at("enc"), encrypted, 0o600), "openssl pkey"},
		{"SEC 1", write(t, at("sec1"), sec1, 0o600), "PKCS #8"},
		{"two keys", write(t, at("two"), append(bytes.Clone(good), good...), 0o600), "nothing else"},
		{"a certificate", write(t, at("crt"), EncodeCertificates(p.cert), 0o600), "PRIVATE KEY"},
		{"DER", write(t, at("der"), p.cert.Raw, 0o600), "no PEM block"},
		{"junk inside", write(t, at("junk"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600), "asn1"},
		{"10 MB", write(t, at("big"), bytes.Repeat([]byte("A"), 10<<20), 0o600), "larger than"},
	} {
		k, err := LoadKey(tt.file)
		if tt.want != "" {
			wantError(t, tt.name, err, tt.file, tt.want)
		} else if err != nil || k == nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestKeysAreSavedForTheirOwnerAlone(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := SaveKey(file, ca.key); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	before, _ := os.ReadFile(file)
	err = SaveKey(file, newKey(t))
	wantError(t, "second key", err, file, "exists already")
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("a key was overwritten")
	}
	if k, err := LoadKey(file); err != nil || !samePublic(k, ca.key) {
		t.Errorf("loaded another key: %v", err)
	}
}

// TestCAFiles has what may stand where CA certificates should (B77).
func TestCAFiles(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	old := newCA(t, nil, "Old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = testNow.Add(-2*time.Hour), testNow.Add(-time.Hour)
	})
	p := newLeaf(t, &ca, Portal, "p", nil)
	underOld := newLeaf(t, &old, Portal, "q", nil)

	f := writeFiles(t, p.with(), p, old.cert, ca.cert)
	c, err := f.load(Portal)
	if err != nil {
		t.Fatalf("an expired CA beside a valid one: %v", err)
	}
	if _, _, err := verifyChain(p.with(), c.current.Load().roots, testNow, x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("leaf of the valid CA: %v", err)
	}
	if _, _, err := verifyChain(underOld.with(), c.current.Load().roots, testNow, x509.ExtKeyUsageClientAuth); err == nil {
		t.Error("leaf of the expired CA was accepted")
	}

	f = writeFiles(t, p.with(), p, old.cert)
	if c, err = f.load(Portal); err != nil {
		t.Fatalf("a CA that has expired by a clock that may be wrong: %v", err)
	}
	_, _, err = verifyChain(underOld.with(), c.current.Load().roots, testNow, x509.ExtKeyUsageClientAuth)
	wantError(t, "only an expired CA", err, "set the clock")

	f = writeFiles(t, p.with(), p, ca.cert, p.cert)
	_, err = f.load(Portal)
	wantError(t, "a leaf among the CAs", err, "not a CA")

	write(t, f.ca, nil, 0o644)
	_, err = f.load(Portal)
	wantError(t, "empty", err, f.ca, "no certificate")

	write(t, f.ca, keyPEM(t, p), 0o644)
	_, err = f.load(Portal)
	wantError(t, "a key as CA", err, f.ca, "no PEM CERTIFICATE block")
}

// TestCertificateFiles has broken PEM and DER (B74).
func TestCertificateFiles(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	good := EncodeCertificates(ca.cert)
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	indefinite := append([]byte{0x30, 0x80}, ca.cert.Raw[4:]...)
	begin := []byte("-----BEGIN CERTIFICATE-----\n")
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"one", good, ""},
		{"16", bytes.Repeat(good, 16), ""},
		{"CRLF and blank lines", append([]byte("\r\n\n"), bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))...), ""},
		{"17", bytes.Repeat(good, 17), "more than 16"},
		{"text before", append([]byte("Certificate:\n"), good...), "no PEM"},
		{"text after", append(bytes.Clone(good), "x"...), "no PEM"},
		{"bytes after the DER", block(append(bytes.Clone(ca.cert.Raw), 0)), "trailing data"},
		{"DER cut", block(ca.cert.Raw[:100]), "x509"},
		{"indefinite length", block(append(indefinite, 0, 0)), "x509"},
		{"a block broken before a good one", append(append(bytes.Clone(begin), "AAAA\n"...), good...), "broken"},
		{"a block whose base64 is broken", bytes.Replace(good, []byte("MII"), []byte("M*I"), 1), "broken"},
		{"one BEGIN line", begin, "no end"},
		{"10,000 BEGIN lines", bytes.Repeat(begin, 10000), "no end"},
		{"10,000 BEGIN lines and an END", append(bytes.Repeat(begin, 10000), "-----END CERTIFICATE-----\n"...), "broken"},
		{"30,000 BEGIN lines without kind", bytes.Repeat([]byte("-----BEGIN "), 30000), "no PEM"},
		{"10 MB", bytes.Repeat(good, 10<<20/len(good)), "larger than"},
	} {
		file := write(t, filepath.Join(dir, "ca.pem"), tt.b, 0o644)
		var err error
		spent := cpu(func() { _, err = LoadCertificates(file) })
		if tt.want != "" {
			wantError(t, tt.name, err, file, tt.want)
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		os.Chmod(file, 0o600)
		keys := cpu(func() { _, err = LoadKey(file) })
		wantError(t, tt.name+", as a key", err, file)
		if spent > 100*time.Millisecond || keys > 100*time.Millisecond {
			t.Errorf("%s: took %v as certificates, %v as a key; want at most 100 ms", tt.name, spent, keys)
		}
	}
}

// B74, B75, B78: a file that is far too large costs no more than one that is a little too large.
func TestHugeFilesAreNotRead(t *testing.T) {
	huge := write(t, filepath.Join(t.TempDir(), "huge"), nil, 0o600)
	if err := os.Truncate(huge, 1<<30); err != nil { // it takes no place on the disk
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, certs := LoadCertificates(huge)
	_, key := LoadKey(huge)
	_, large := ReadFileLimit(huge, 4<<20)
	runtime.ReadMemStats(&after)
	for _, err := range []error{certs, key, large} {
		wantError(t, "1 GB", err, huge, "larger than")
	}
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 64 {
		t.Errorf("%d MB were taken for it", used)
	}
}

// A process may be killed at any moment, and what was never written whole cannot be used or made again.
func TestNewFileIsThereWholeOrNotAtAll(t *testing.T) {
	const content = "a key"
	dir := t.TempDir()
	for i := range 100 {
		file := filepath.Join(dir, fmt.Sprint(i))
		made := make(chan error)
		go func() { made <- CreateFile(file, []byte(content), 0o600) }()
		for done := false; !done; {
			select {
			case err := <-made:
				if err != nil {
					t.Fatal(err)
				}
				done = true
			default:
			}
			b, err := os.ReadFile(file)
			if whole := err == nil && string(b) == content; !whole && (done || !errors.Is(err, fs.ErrNotExist)) {
				t.Fatalf("file %d holds %q, %v", i, b, err)
			}
		}
	}
	taken := filepath.Join(dir, "0")
	wantError(t, "a name that is taken", CreateFile(taken, []byte("another key"), 0o600), taken, "exists already")
	if b, err := os.ReadFile(taken); err != nil || string(b) != content {
		t.Errorf("what was there is %q now, %v", b, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 100 {
		t.Errorf("%d files are left, want 100", len(list))
	}
}

func TestReplacedFileIsWhole(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	for _, content := range []string{"one", "two"} {
		if err := ReplaceFile(file, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		b, err := ReadFile(file)
		info, _ := os.Stat(file)
		if err != nil || string(b) != content || info.Mode() != 0o640 {
			t.Errorf("got %q, mode %v, %v; want %q, 0640", b, info.Mode(), err, content)
		}
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%d files are left, want 1", len(list))
	}
	wantError(t, "no such folder", ReplaceFile(filepath.Join(dir, "none", "x"), nil, 0o600), "none", "no such file")
	if _, err := ReadFileLimit(file, 3); err != nil {
		t.Errorf("a file as large as its limit: %v", err)
	}
	_, err := ReadFileLimit(file, 2)
	wantError(t, "a byte too much", err, file, "larger than 2 bytes")
}
