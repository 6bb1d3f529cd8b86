package tpm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/netport/netport/portal/internal/keystore/tpm/tpmtest"
)

// TestTemplatesAreWhatALibraryWrites compares them with those of an independent library.
func TestTemplatesAreWhatALibraryWrites(t *testing.T) {
	key := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
	primary := tpm2.ECCSRKTemplate // with a point that is no template's: the file form wants an empty one
	primary.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	for name, pair := range map[string][2][]byte{
		"key": {keyTemplate, tpm2.Marshal(key)}, "primary": {primaryTemplate, tpm2.Marshal(primary)},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s:\n%x, want\n%x", name, pair[0], pair[1])
		}
	}
}

// TestTheTPMKeepsItsKey asks the TPM's own words what may be done with a key.
func TestTheTPMKeepsItsKey(t *testing.T) {
	soft := tpmtest.New(t)
	_, file := made(t, New(soft.Path))
	f, err := parse(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](f.Public)
	if err != nil {
		t.Fatal(err)
	}
	p, err := public.Contents()
	if err != nil {
		t.Fatal(err)
	}
	want := tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
	if p.ObjectAttributes != want {
		t.Errorf("its attributes are %+v", p.ObjectAttributes)
	}
	for n := range f.Public {
		if _, err := publicKey(f.Public[:n]); err == nil {
			t.Errorf("a public part cut after %d bytes passes", n)
		}
	}
	for name, change := range map[string]func(*keyFile){
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
	if err == nil || !strings.Contains(err.Error(), "TPM error 0x") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a wrapped key of three bytes: %v", err)
	}
}

func FuzzPublicKey(f *testing.F) {
	f.Add([]byte{0, 4, 0, 35, 0, 11})
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := publicKey(b); (key == nil) == (err == nil) {
			t.Errorf("%x: %v, %v", b, key, err)
		}
		if r, err := answer(b); (r == nil) == (err == nil) {
			t.Errorf("%x: %v, %v", b, r, err)
		}
	})
}
