package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/netport/netport/portal/internal/keystore/tpm/tpmtest"
)

// made makes a key, and returns the contents of its file too.
func made(t *testing.T, m *TPM) (crypto.Signer, []byte) {
	t.Helper()
	text, key, err := m.Make()
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

// wantError wants an error of one line that has all these words.
func wantError(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v", what, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v; it lacks %q", what, err, word)
		}
	}
}

// inside runs f with the TPM open, as its owner would.
func inside(t *testing.T, soft *tpmtest.TPM, f func(*session) error) {
	t.Helper()
	s, err := open(soft.Path, time.Now().Add(time.Minute))
	if err == nil {
		err = f(s)
		s.close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// objects returns the handles of a kind that the TPM has.
func objects(t *testing.T, soft *tpmtest.TPM, kind tpm2.TPMHandle) (list []tpm2.TPMHandle) {
	t.Helper()
	inside(t, soft, func(s *session) error {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(kind), PropertyCount: 100}.Execute(s.tpm)
		if err != nil {
			return err
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		if err == nil {
			list = handles.Handle
		}
		return err
	})
	return list
}

const transient, persistent = tpm2.TPMHandle(0x80000000), tpm2.TPMHandle(0x81000000)

func TestKeyLivesInOneTPM(t *testing.T) {
	soft := tpmtest.New(t)
	m := New(soft.Path)
	key, file := made(t, m)
	if err := sign(key); err != nil {
		t.Fatal(err)
	}
	again, err := New(soft.Path).Load(file)
	if err != nil || !again.Public().(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Fatalf("loaded by another process: %v", err)
	}
	if err := sign(again); err != nil {
		t.Error(err)
	}

	soft.Stop()
	wantError(t, "without power", sign(key), "use the TPM "+soft.Path, "there is none", "--tpm")
	soft.Start()
	if err := sign(key); err != nil {
		t.Errorf("with power again: %v", err)
	}
	if list := objects(t, soft, transient); len(list) > 0 {
		t.Errorf("left in the TPM: %#x", list)
	}

	other := tpmtest.New(t)
	_, err = New(other.Path).Load(file)
	wantError(t, "in another TPM", err, "made by another TPM", "join anew")
	if list := objects(t, other, transient); len(list) > 0 {
		t.Errorf("left in the other TPM: %#x", list)
	}
}

func TestManyHandshakesAtOnce(t *testing.T) {
	soft := tpmtest.New(t)
	m := New(soft.Path)
	keys := [2]crypto.Signer{}
	for i := range keys {
		keys[i], _ = made(t, m)
	}
	var signers sync.WaitGroup
	for i := range 64 {
		signers.Go(func() {
			if err := sign(keys[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	signers.Wait()
	if list := objects(t, soft, transient); len(list) > 0 {
		t.Errorf("left in the TPM: %#x", list)
	}
}

func TestPersistentStorageKeyIsPreferred(t *testing.T) {
	soft := tpmtest.New(t)
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	evict := func(object tpm2.AuthHandle) {
		inside(t, soft, func(s *session) error {
			if object.Handle == 0 {
				var err error
				if object, err = s.parent(tpm2.TPMRHOwner); err != nil {
					return err
				}
			}
			_, err := tpm2.EvictControl{Auth: owner, ObjectHandle: &tpm2.NamedHandle{Handle: object.Handle, Name: object.Name}, PersistentHandle: storageKey}.Execute(s.tpm)
			return err
		})
	}
	evict(tpm2.AuthHandle{})
	m := New(soft.Path)
	key, file := made(t, m)
	if err := sign(key); err != nil {
		t.Error(err)
	}
	f, err := parse(file)
	if err != nil || f.Parent != int64(storageKey) {
		t.Errorf("wrapped by %#x, %v", f.Parent, err)
	}
	var held tpm2.AuthHandle
	inside(t, soft, func(s *session) (err error) { held, err = s.parent(storageKey); return err })
	evict(held)
	if list := objects(t, soft, persistent); len(list) > 0 {
		t.Fatalf("still there: %#x", list)
	}
	wantError(t, "its storage key is gone", sign(key), "storage key", "is gone")
}

func TestWhatTheOwnerForbids(t *testing.T) {
	soft := tpmtest.New(t)
	m := New(soft.Path)
	// A key as other programs make it: wrong passwords for any such key lock it.
	fragile := &key{tpm: m}
	own := keyTemplate
	defer func() { keyTemplate = own }()
	keyTemplate.ObjectAttributes.NoDA = false
	inside(t, soft, func(s *session) error { _, err := s.make(fragile); return err })
	if err := sign(fragile); err != nil {
		t.Fatal(err)
	}
	keyTemplate = own
	sturdy, _ := made(t, m)
	inside(t, soft, func(s *session) error {
		if err := s.load(fragile); err != nil {
			return err
		}
		for range 100 {
			_, err := tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: s.key.Handle, Name: s.key.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
				Digest:    tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
				InScheme: tpm2.TPMTSigScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
				},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(s.tpm)
			if errors.Is(err, tpm2.TPMRCLockout) {
				return nil
			}
		}
		return errors.New("it does not lock")
	})
	wantError(t, "in lockout", sign(fragile), "in lockout", "tpm2_dictionarylockout")
	if err := sign(sturdy); err != nil {
		t.Errorf("a key of ours is locked too: %v", err)
	}

	inside(t, soft, func(s *session) error {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("owner")},
		}.Execute(s.tpm)
		return err
	})
	_, _, err := m.Make()
	wantError(t, "with an owner's password", err, "owner has set a password", "0x81000001")
}

func TestTPMThatHangsHoldsNobodyUp(t *testing.T) {
	soft := tpmtest.New(t)
	m := New(soft.Path)
	m.signTime = 200 * time.Millisecond
	key, _ := made(t, m)
	soft.Stop()
	l, err := net.Listen("unix", soft.Path) // it takes commands, and never answers
	if err != nil {
		t.Fatal(err)
	}
	var signers sync.WaitGroup
	for range 8 {
		signers.Go(func() { wantError(t, "a TPM that hangs", sign(key), "does not answer in time") })
	}
	signers.Wait()
	l.Close()
	soft.Start()
	if err := sign(key); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestTPMThatTalksNonsense(t *testing.T) {
	dir, err := os.MkdirTemp("", "netport-tpm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan []byte, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, maxLen))
			conn.Write(<-answers)
			conn.Close()
		}
	})
	for _, tt := range []struct{ name, answer, want string }{
		{"nothing", "", "closed the connection"},
		{"half a header", "\x80\x01\x00\x00", "closed the connection"},
		{"4 GB", "\x80\x01\xff\xff\xff\xff\x00\x00\x00\x00", "4294967295 bytes"},
		{"less than a header", "\x80\x01\x00\x00\x00\x09\x00\x00\x00\x00", "9 bytes"},
		{"less than it says", "\x80\x01\x00\x00\x00\x0b\x00\x00\x00\x00", "closed the connection"},
	} {
		answers <- []byte(tt.answer)
		_, _, err := New(path).Make()
		wantError(t, tt.name, err, tt.want)
	}
	l.Close()
	serving.Wait()
}

func TestNoTPM(t *testing.T) {
	soft := tpmtest.New(t)
	_, file := made(t, New(soft.Path))
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "tpmrm0"): "there is none",
		plain:                                "neither a device nor a socket",
		t.TempDir():                          "neither a device nor a socket",
	} {
		_, err := New(path).Load(file)
		wantError(t, "load with "+path, err, "use the TPM "+path, want)
	}
	who := fmt.Sprintf("user %d has no right", os.Geteuid())
	if os.Geteuid() == 0 {
		who = "gives back what root may"
	}
	wantError(t, "no rights", bare(&fs.PathError{Op: "open", Path: Device, Err: syscall.EACCES}), who, "group tss")
	wantError(t, "taken", bare(&fs.PathError{Op: "open", Path: "/dev/tpm0", Err: syscall.EBUSY}), Device)
}
