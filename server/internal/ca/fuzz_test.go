package ca

import (
	"crypto/x509"
	"testing"
	"time"
)

// FuzzRequest has requests of intermediates, as they come by files and pipes.
func FuzzRequest(f *testing.F) {
	key, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	text, err := NewRequest("example.org", key, time.Unix(1, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-30])
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil && r.CheckSignature() != nil {
			t.Fatal("nobody has signed it")
		}
	})
}

// FuzzBundle has the authorities as the state keeps them.
func FuzzBundle(f *testing.F) {
	a, err := New("example.org", time.Now)
	if err != nil {
		f.Fatal(err)
	}
	text, err := Bundle{Version: 1, Trusted: []*x509.Certificate{a.Certificate}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := ParseBundle(b)
		if err != nil {
			return
		}
		text, err := bundle.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseBundle(text); err != nil || again.Version != bundle.Version || len(again.Trusted) != len(bundle.Trusted) || again.KeyFile != bundle.KeyFile {
			t.Fatalf("%+v became %+v, %v", bundle, again, err)
		}
	})
}
