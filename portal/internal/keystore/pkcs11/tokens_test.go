//go:build pkcs11 && cgo

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
)

// module is SoftHSM's library, as Debian has it.
const module = "/usr/lib/softhsm/libsofthsm2.so"

// The PIN that the tokens have.
const pin = "987654"

// TestMain makes two tokens for all tests: a module is started once in a process, and
// then knows what it found.
func TestMain(m *testing.M) { os.Exit(withTokens(m)) }

func withTokens(m *testing.M) int {
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		return m.Run() // which skips
	}
	dir, err := os.MkdirTemp("", "netport-softhsm-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.WriteFile(filepath.Join(dir, "conf"), []byte("directories.tokendir = "+dir+"\nlog.level = ERROR\n"), 0o600)
	}
	os.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "conf"))
	for _, label := range []string{"netport", "other"} {
		if err == nil {
			var out []byte
			if out, err = exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "1234", "--pin", pin).CombinedOutput(); err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make the tokens:", err)
		return 1
	}
	return m.Run()
}

// uri names a key on the token with a label. Without SoftHSM the test is skipped, and
// fails where CI=true.
func uri(t *testing.T, token, pin string) URI {
	t.Helper()
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs program softhsm2-util in PATH")
		}
		t.Skip("needs program softhsm2-util in PATH")
	}
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return URI{Token: token, Object: "portal", Module: module, PIN: file}
}

func made(t *testing.T, tokens *Tokens, u URI) (crypto.Signer, []byte) {
	t.Helper()
	text, key, err := tokens.Make(u)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	return key, block.Bytes
}

func sign(key crypto.Signer) error {
	digest := sha256.Sum256([]byte("a transcript"))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature) {
		err = errors.New("the signature is not that of the key")
	}
	return err
}

// wantError wants an error of one line that has all these words, and never the PIN.
func wantError(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), pin) {
		t.Errorf("%s: %v", what, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v; it lacks %q", what, err, word)
		}
	}
}

func TestKeyIsMadeFoundReplacedAndRemoved(t *testing.T) {
	u := uri(t, "netport", pin)
	var tokens Tokens
	first, file := made(t, &tokens, u)
	text, second, err := tokens.MakeLike(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	for _, k := range []struct {
		key  crypto.Signer
		file []byte
	}{{first, file}, {second, block.Bytes}} {
		found, err := tokens.Load(k.file)
		if err != nil || !found.Public().(*ecdsa.PublicKey).Equal(k.key.Public()) {
			t.Fatalf("found again: %v", err)
		}
		if err := sign(found); err != nil {
			t.Error(err)
		}
	}
	if err := tokens.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, "sign with a key that is removed", sign(first), "is not on it")
	_, err = tokens.Load(file)
	wantError(t, "load a key that is removed", err, `use the PKCS #11 token "netport"`, "is not on it")
	if err := sign(second); err != nil { // after an error, by a new session
		t.Error(err)
	}
	_, _, err = tokens.Make(URI{Token: "netport", Object: "portal", ID: "1", Module: module})
	wantError(t, "an id of its own", err, "leave it out")
}

func TestKeyCannotBeReadOut(t *testing.T) {
	u := uri(t, "netport", pin)
	var tokens Tokens
	signer, _ := made(t, &tokens, u)
	u = signer.(*key).uri
	err := tokens.use(signTime, u, func(s *session) error {
		object, err := s.private(u)
		if err != nil {
			return err
		}
		if _, err := s.module.GetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)}); err == nil {
			return errors.New("the private key can be read")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestManyHandshakesAtOnce(t *testing.T) {
	var tokens Tokens
	key, _ := made(t, &tokens, uri(t, "netport", pin))
	var signers sync.WaitGroup
	for range 64 {
		signers.Go(func() {
			if err := sign(key); err != nil {
				t.Error(err)
			}
		})
	}
	signers.Wait()
}

func TestTokensThatCannotBeUsed(t *testing.T) {
	u := uri(t, "netport", pin)
	missing, foreign, unknown, unread := u, u, u, u
	missing.Module = filepath.Join(t.TempDir(), "libnone.so")
	foreign.Module = u.PIN // a file that is no library
	unknown.Token = "somewhere"
	unread.PIN = filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name string
		uri  URI
		want string
	}{
		{"no module", missing, "there is no such module"},
		{"no library", foreign, "cannot be loaded"},
		{"no token", unknown, `no such token, only "netport", "other"`},
		{"no file with the PIN", unread, "its PIN"},
	} {
		var tokens Tokens
		_, _, err := tokens.Make(tt.uri)
		wantError(t, tt.name, err, tt.want)
	}
}

func TestWrongPINIsTriedOnce(t *testing.T) {
	u := uri(t, "other", "000000")
	var tokens Tokens
	_, _, err := tokens.Make(u)
	wantError(t, "a wrong PIN", err, "PIN is wrong", "not tried again")
	token := u
	token.Object = ""
	unasked := &session{} // without a module: it is not to be asked
	wantError(t, "the same PIN again", explain(tokens.login(unasked, token, pkcs11.TokenInfo{})), "PIN is wrong")
	if err := os.WriteFile(u.PIN, []byte("111111\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := pkcs11.TokenInfo{Flags: pkcs11.CKF_USER_PIN_FINAL_TRY}
	wantError(t, "the last try", tokens.login(unasked, token, last), "locks it")
	if err := os.WriteFile(u.PIN, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, _ := made(t, &tokens, u)
	if err := sign(key); err != nil {
		t.Errorf("with the right one: %v", err)
	}
}
