// Package keystore says where the private key of a portal is: in its file, in the
// machine's TPM, or on a PKCS #11 token. Each kind has a file of its own PEM type, so a
// file alone tells where its key is; the rest of Netport sees a crypto.Signer.
package keystore

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"

	"github.com/netport/netport/portal/internal/keystore/pkcs11"
	"github.com/netport/netport/portal/internal/keystore/tpm"
	"github.com/netport/netport/proto/identity"
)

// The places of keys besides the URI of a PKCS #11 token.
const (
	InFile = "file"
	InTPM  = "tpm"
)

// Store is an identity.Keys. It is constant once used.
type Store struct {
	// Place is where keys are to be made and to be found: InFile, InTPM or a URI
	// (RFC 7512). Empty: where the file says.
	Place string
	// TPM is the device file or the Unix socket of the TPM.
	TPM string

	files  identity.KeyFiles
	once   sync.Once
	opened *tpm.TPM
	tokens pkcs11.Tokens
}

func (s *Store) tpm() *tpm.TPM {
	s.once.Do(func() { s.opened = tpm.New(s.TPM) })
	return s.opened
}

// CheckPlace says what is wrong with a place.
func CheckPlace(place string) error {
	if place == InFile || place == InTPM {
		return nil
	}
	if !strings.HasPrefix(place, pkcs11.Scheme) {
		return fmt.Errorf(`it must be %q, %q or a PKCS #11 URI (%s...)`, InFile, InTPM, pkcs11.Scheme)
	}
	_, err := pkcs11.ParseURI(place)
	return err
}

// Load returns the key of a file.
func (s *Store) Load(file string) (crypto.Signer, error) {
	kind, der, err := read(file)
	if err != nil {
		return nil, err
	}
	if is := kindOf(s.Place); s.Place != "" && is != kind {
		return nil, fmt.Errorf("read key %s: it is there already and its key is %s, not %s: move it away", file, where(kind), where(is))
	}
	var key crypto.Signer
	switch kind {
	case tpm.BlockType:
		key, err = s.tpm().Load(der)
	case pkcs11.BlockType:
		key, err = s.tokens.Load(der)
	default:
		return s.files.Load(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	return key, nil
}

// Make makes a key and its file: where that of the file like is, or in the store's
// place.
func (s *Store) Make(file, like string) (crypto.Signer, error) {
	kind, der := kindOf(s.Place), []byte(nil)
	if like != "" {
		var err error
		if kind, der, err = read(like); err != nil {
			return nil, err
		}
	}
	var text []byte
	var key crypto.Signer
	var err error
	switch {
	case kind == tpm.BlockType:
		text, key, err = s.tpm().Make()
	case kind == pkcs11.BlockType && like != "":
		text, key, err = s.tokens.MakeLike(der)
	case kind == pkcs11.BlockType:
		var uri pkcs11.URI
		if uri, err = pkcs11.ParseURI(s.Place); err == nil {
			text, key, err = s.tokens.Make(uri)
		}
	default:
		return s.files.Make(file, like)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := identity.CreateFile(file, text, 0o600); err != nil {
		s.remove(text) // nobody would ever find it again
		return nil, err
	}
	return key, nil
}

// Discard destroys the key of a file if it is on a token.
func (s *Store) Discard(file string) error {
	text, err := identity.ReadSecret(file)
	if err != nil {
		return err
	}
	if err := s.remove(text); err != nil {
		return fmt.Errorf("destroy the key of %s: %w", file, err)
	}
	return nil
}

func (s *Store) remove(text []byte) error {
	if block, _ := pem.Decode(text); block != nil && block.Type == pkcs11.BlockType {
		return s.tokens.Remove(block.Bytes)
	}
	return nil
}

// read returns the PEM type and the contents of the file of a key; neither of a key
// that is in its file, which is judged elsewhere.
func read(file string) (kind string, der []byte, err error) {
	text, err := identity.ReadSecret(file)
	if err != nil {
		return "", nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != tpm.BlockType && block.Type != pkcs11.BlockType {
		return "", nil, nil
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return "", nil, fmt.Errorf("read key %s: it must hold one PEM block and nothing else", file)
	}
	return block.Type, block.Bytes, nil
}

// kindOf returns the PEM type of the files of a place.
func kindOf(place string) string {
	switch place {
	case "", InFile:
		return ""
	case InTPM:
		return tpm.BlockType
	}
	return pkcs11.BlockType
}

// where says in words where keys of a kind are.
func where(kind string) string {
	switch kind {
	case tpm.BlockType:
		return "in a TPM"
	case pkcs11.BlockType:
		return "on a PKCS #11 token"
	}
	return "in the file"
}
