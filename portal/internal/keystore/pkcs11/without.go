//go:build !(pkcs11 && cgo)

package pkcs11

import (
	"crypto"
	"errors"
)

// Tokens stand for tokens that cannot be used.
type Tokens struct{}

var errBuilt = errors.New(`this netport-portal was built without PKCS #11: use one that "make build-pkcs11" has built`)

// Make fails.
func (*Tokens) Make(URI) ([]byte, crypto.Signer, error) { return nil, nil, errBuilt }

// MakeLike fails.
func (*Tokens) MakeLike([]byte) ([]byte, crypto.Signer, error) { return nil, nil, errBuilt }

// Load fails, in words of the key first.
func (*Tokens) Load(der []byte) (crypto.Signer, error) {
	if _, err := decode(der); err != nil {
		return nil, err
	}
	return nil, errBuilt
}

// Remove fails.
func (*Tokens) Remove([]byte) error { return errBuilt }
