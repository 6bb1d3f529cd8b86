//go:build pkcs11 && cgo

package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
)

// key is one key on a token. It is constant once made, and a crypto.Signer.
type key struct {
	tokens *Tokens
	uri    URI
	ecdsa  *ecdsa.PublicKey
}

// Public returns an *ecdsa.PublicKey.
func (k *key) Public() crypto.PublicKey { return k.ecdsa }

// Sign signs a SHA-256 digest. It fails within seconds if the token does not answer.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("a P-256 key on a token signs digests of SHA-256, not of %v", opts.HashFunc())
	}
	var raw []byte // r and s, of the same length
	if err := k.tokens.use(signTime, k.uri, func(s *session) error {
		object, err := s.private(k.uri)
		if err != nil {
			return err
		}
		if err := s.module.SignInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, object); err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		raw, err = s.module.Sign(s.handle, digest)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	r, s := raw[:len(raw)/2], raw[len(raw)/2:]
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
}
