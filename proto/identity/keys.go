package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
)

// Keys are the private keys of one role, wherever they are. Each has a file, which
// holds it or says where it is; whoever replaces or moves a file thereby replaces or
// moves the key. Signers may be used by many goroutines at once.
type Keys interface {
	// Load returns the key of a file that only its owner can read.
	Load(file string) (crypto.Signer, error)
	// Make makes an ECDSA P-256 key and its file, which must not be there yet. With
	// like, the file of another key, it is made where that one is.
	Make(file, like string) (crypto.Signer, error)
	// Discard destroys what the key of a file keeps elsewhere. The file is about to be
	// replaced, and its key used no more.
	Discard(file string) error
}

// KeyFiles are keys that are in their files.
type KeyFiles struct{}

// Load is LoadKey.
func (KeyFiles) Load(file string) (crypto.Signer, error) { return LoadKey(file) }

// Make makes a key and saves it (SaveKey).
func (KeyFiles) Make(file, _ string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, SaveKey(file, key)
}

// Discard has nothing to do.
func (KeyFiles) Discard(string) error { return nil }
