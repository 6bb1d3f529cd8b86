package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
)

// key is one key of a TPM. It is constant once made, and a crypto.Signer.
type key struct {
	tpm   *TPM
	file  keyFile
	ecdsa *ecdsa.PublicKey
}

// The public areas of keys that are to be: of one that signs what it is given, and of the
// storage key of key files whose parent is the owner.
var (
	keyTemplate     = template(fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|noDA|signs, false)
	primaryTemplate = template(fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|noDA|restricted|decrypt, true)
)

// newKey returns the key of a file.
func newKey(t *TPM, f keyFile) (*key, error) {
	const persistent, kind = 0x81000000, ^int64(0xffffff)
	if f.Parent != hierarchyOwner && f.Parent&kind != persistent {
		return nil, fmt.Errorf("the key that wraps it has the handle %#x: it must be the owner's primary (%#x) or a persistent one", f.Parent, hierarchyOwner)
	}
	if r := (reader{b: f.Private}); len(r.sized()) == 0 || r.bad || len(r.b) > 0 {
		return nil, errors.New("its private part is no TPM's")
	}
	public, err := publicKey(f.Public)
	if err != nil {
		return nil, err
	}
	return &key{tpm: t, file: f, ecdsa: public}, nil
}

// publicKey returns the public half of what a TPM calls public (TPM2B_PUBLIC).
func publicKey(b []byte) (*ecdsa.PublicKey, error) {
	wrong := errors.New("it is no ECDSA P-256 key")
	outer := reader{b: b}
	r := reader{b: outer.sized()}
	kind := r.uint16()
	r.uint16() // hash of its name
	attributes := r.uint32()
	r.sized()                        // policy
	if r.uint16() != algorithmNull { // symmetric: it wraps
		return nil, wrong
	}
	if r.uint16() != algorithmNull { // scheme
		r.uint16() // its hash
	}
	curve := r.uint16()
	if r.uint16() != algorithmNull { // key derivation
		return nil, wrong
	}
	x, y := r.sized(), r.sized()
	if outer.bad || r.bad || len(outer.b)+len(r.b) > 0 || kind != algorithmECC || curve != curveP256 ||
		attributes&signs == 0 || attributes&restricted != 0 || len(x) > 32 || len(y) > 32 {
		return nil, wrong
	}
	point := []byte{4}
	for _, n := range [][]byte{x, y} {
		point = append(append(point, bytes.Repeat([]byte{0}, 32-len(n))...), n...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, wrong
	}
	return key, nil
}

// Public returns an *ecdsa.PublicKey.
func (k *key) Public() crypto.PublicKey { return k.ecdsa }

// Sign signs a SHA-256 digest. It fails within seconds if the TPM does not answer.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("a P-256 key in a TPM signs digests of SHA-256, not of %v", opts.HashFunc())
	}
	var der []byte
	if err := k.tpm.use(k.tpm.signTime, k, func(s *session) (err error) {
		der, err = s.sign(digest)
		return err
	}); err != nil {
		return nil, err
	}
	return der, nil
}
