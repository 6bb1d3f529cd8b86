package tpm

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"
)

func der(t *testing.T, f keyFile) []byte {
	t.Helper()
	text, err := f.encode()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != BlockType || len(rest) > 0 {
		t.Fatalf("no such PEM block: %s", text)
	}
	return block.Bytes
}

func TestKeyFileIsReadAsItWasWritten(t *testing.T) {
	b := der(t, keyFile{Parent: 0x81000001, Public: []byte("public"), Private: []byte("private")})
	f, err := parse(b)
	if err != nil || f.Parent != 0x81000001 || string(f.Public) != "public" || string(f.Private) != "private" {
		t.Fatalf("read %+v, %v", f, err)
	}
	for n := range b {
		if _, err := parse(b[:n]); err == nil {
			t.Errorf("a file cut after %d bytes passes", n)
		}
	}
	if _, err := parse(append(b, 0)); err == nil {
		t.Error("a byte after its end passes")
	}
	// OpenSSL's tpm2 provider writes TRUE as 01, which is BER and not DER.
	other := bytes.Replace(b, []byte{asn1.TagBoolean, 1, 0xff}, []byte{asn1.TagBoolean, 1, 1}, 1)
	if _, err := parse(other); bytes.Equal(other, b) || err != nil {
		t.Errorf("a BOOLEAN of OpenSSL's tpm2 provider: %v", err)
	}
}

func TestKeysThatCannotBeUsedAreRefusedByName(t *testing.T) {
	explicit := func(tag int, contents ...byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: contents}
	}
	whole := func(change func(*keyFile)) []byte {
		f := keyFile{Type: loadable, Parent: 0x40000001, Public: []byte{1}, Private: []byte{2}}
		f.EmptyAuth.FullBytes = emptyAuth
		change(&f)
		b, err := asn1.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name, want string
		der        []byte
	}{
		{"sealed data", "of type 2.23.133.10.1.5", whole(func(f *keyFile) { f.Type = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 5} })},
		{"with a password", "asks for a password", whole(func(f *keyFile) { f.EmptyAuth = asn1.RawValue{} })},
		{"with a password, said outright", "asks for a password", whole(func(f *keyFile) { f.EmptyAuth = explicit(0, asn1.TagBoolean, 1, 0) })},
		{"with a policy", "bound to a policy", whole(func(f *keyFile) { f.Policy = explicit(1, asn1.TagSequence|0x20, 0) })},
		{"with a policy of the owner", "bound to a policy", whole(func(f *keyFile) { f.AuthPolicy = explicit(3, asn1.TagSequence|0x20, 0) })},
		{"of another kind", "no TPM 2.0 key", []byte{asn1.TagSequence | 0x20, 0}},
	} {
		if _, err := parse(tt.der); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
