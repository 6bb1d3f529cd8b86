package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// key is one key of a TPM. It is constant once made, and a crypto.Signer.
type key struct {
	tpm     *TPM
	ecdsa   *ecdsa.PublicKey
	parent  tpm2.TPMHandle
	public  tpm2.TPM2BPublic
	private tpm2.TPM2BPrivate // wrapped
}

// keyTemplate is a key that signs what it is given, that the TPM has drawn itself and
// lets nobody copy, and that no wrong passwords for other keys lock.
var keyTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		UserWithAuth: true, NoDA: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
}

// primaryTemplate is the storage key of key files whose parent is the owner.
var primaryTemplate = func() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}()

// newKey returns the key of a file.
func newKey(t *TPM, f keyFile) (*key, error) {
	const persistent, kind = 0x81000000, 0xff000000
	if f.Parent != int64(tpm2.TPMRHOwner) && (f.Parent < 0 || f.Parent&^0xffffffff != 0 || f.Parent&kind != persistent) {
		return nil, fmt.Errorf("the key that wraps it has the handle %#x: it must be the owner's primary (%#x) or a persistent one", f.Parent, uint32(tpm2.TPMRHOwner))
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](f.Public)
	if err != nil || !bytes.Equal(tpm2.Marshal(*public), f.Public) { // the library takes what follows
		return nil, errors.New("its public part is no TPM's")
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](f.Private)
	if err != nil || len(private.Buffer) == 0 || !bytes.Equal(tpm2.Marshal(*private), f.Private) {
		return nil, errors.New("its private part is no TPM's")
	}
	k := &key{tpm: t, parent: tpm2.TPMHandle(f.Parent), public: *public, private: *private}
	if k.ecdsa, err = publicKey(k.public); err != nil {
		return nil, err
	}
	return k, nil
}

// publicKey returns the public half of what a TPM calls public.
func publicKey(public tpm2.TPM2BPublic) (*ecdsa.PublicKey, error) {
	wrong := errors.New("it is no ECDSA P-256 key")
	p, err := public.Contents()
	if err != nil {
		return nil, wrong
	}
	parms, err := p.Parameters.ECCDetail()
	if err != nil || parms.CurveID != tpm2.TPMECCNistP256 || !p.ObjectAttributes.SignEncrypt || p.ObjectAttributes.Restricted {
		return nil, wrong
	}
	at, err := p.Unique.ECC()
	if err != nil || len(at.X.Buffer) > 32 || len(at.Y.Buffer) > 32 {
		return nil, wrong
	}
	point := append(make([]byte, 0, 65), 4)
	for _, n := range [][]byte{at.X.Buffer, at.Y.Buffer} {
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
	var signature *tpm2.TPMSSignatureECC
	err := k.tpm.use(k.tpm.signTime, k, func(s *session) error {
		rsp, err := tpm2.Sign{
			KeyHandle: tpm2.AuthHandle{Handle: s.key.Handle, Name: s.key.Name, Auth: tpm2.PasswordAuth(nil)},
			Digest:    tpm2.TPM2BDigest{Buffer: digest},
			InScheme: tpm2.TPMTSigScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
			},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(s.tpm)
		if err != nil {
			return err
		}
		signature, err = rsp.Signature.Signature.ECDSA()
		return err
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(signature.SignatureR.Buffer), new(big.Int).SetBytes(signature.SignatureS.Buffer),
	})
}
