package tpm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/netport/netport/portal/internal/keystore/tpm/tpmtest"
)

// TestTheTPMKeepsItsKey asks the TPM's own words what may be done with a key.
func TestTheTPMKeepsItsKey(t *testing.T) {
	soft := tpmtest.New(t)
	_, file := made(t, New(soft.Path))
	f, err := parse(file)
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKey(New(soft.Path), f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.public.Contents()
	if err != nil {
		t.Fatal(err)
	}
	want := tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
	if p.ObjectAttributes != want {
		t.Errorf("its attributes are %+v", p.ObjectAttributes)
	}
	for name, change := range map[string]func(*keyFile){
		"cut public part":          func(f *keyFile) { f.Public = f.Public[:len(f.Public)-1] },
		"no public part":           func(f *keyFile) { f.Public = nil },
		"cut private part":         func(f *keyFile) { f.Private = f.Private[:len(f.Private)-1] },
		"more than a private part": func(f *keyFile) { f.Private = append(f.Private[:len(f.Private):len(f.Private)], 0) },
		"no private part":          func(f *keyFile) { f.Private = nil },
		"more than a public part":  func(f *keyFile) { f.Public = append(f.Public[:len(f.Public):len(f.Public)], 0) },
		"a parent that is no key":  func(f *keyFile) { f.Parent = 0x01800001 },
		"a negative parent":        func(f *keyFile) { f.Parent = -0x7f000000 + 1 },
		"a huge parent":            func(f *keyFile) { f.Parent = 0x181000001 },
		"a point off the curve":    func(f *keyFile) { f.Public = bytes.Clone(f.Public); f.Public[len(f.Public)-1] ^= 1 },
	} {
		other := f
		change(&other)
		if _, err := newKey(New(soft.Path), other); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	// What nobody here can do anything about is said as it is.
	_, err = New(soft.Path).Load(der(t, keyFile{Parent: f.Parent, Public: f.Public, Private: append([]byte{0, 3}, f.Private[2:5]...)}))
	if err == nil || !strings.Contains(err.Error(), "TPM_RC_") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a wrapped key of three bytes: %v", err)
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte{0, 4, 0, 35, 0, 11}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, public, private []byte) {
		if key, err := newKey(nil, keyFile{Parent: int64(storageKey), Public: public, Private: private}); (key == nil) == (err == nil) {
			t.Errorf("%x, %x: %v, %v", public, private, key, err)
		}
	})
}
