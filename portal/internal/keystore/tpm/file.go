// Package tpm keeps the private key of a portal in the machine's TPM 2.0: an ECDSA
// P-256 key that is made there and never leaves it. What is on disk is the key wrapped
// by the TPM, in the form that other programs read too (PEM "TSS2 PRIVATE KEY", the
// ASN.1 Specification for TPM 2.0 Key Files), and is of no use to another TPM.
//
// A TPM has room for a few keys only, and others use it too. So a key is loaded for as
// long as somebody waits for a signature, and then the device is left empty and closed.
package tpm

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	// BlockType is the PEM type of a key file.
	BlockType = "TSS2 PRIVATE KEY"
	// Device is where Linux has its first TPM, shared by all who use it.
	Device = "/dev/tpmrm0"
)

// loadable is the type of a key that one TPM has made for itself.
var loadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// keyFile is the ASN.1 form of a key, as far as it is used here.
type keyFile struct {
	Type        asn1.ObjectIdentifier
	EmptyAuth   asn1.RawValue `asn1:"optional,explicit,tag:0"` // a BOOLEAN: it asks for no password
	Policy      asn1.RawValue `asn1:"optional,explicit,tag:1"`
	Secret      asn1.RawValue `asn1:"optional,explicit,tag:2"`
	AuthPolicy  asn1.RawValue `asn1:"optional,explicit,tag:3"`
	Description string        `asn1:"optional,explicit,utf8,tag:4"`
	RSAParent   bool          `asn1:"optional,explicit,tag:5"`
	Parent      int64         // handle of the key that wraps it
	Public      []byte        // TPM2B_PUBLIC
	Private     []byte        // TPM2B_PRIVATE
}

// emptyAuth is true as DER has it. Others write 01 for 0xff, which is BER.
var emptyAuth = []byte{0xa0, 3, asn1.TagBoolean, 1, 0xff}

// encode returns the file of a key.
func (f keyFile) encode() ([]byte, error) {
	f.Type, f.EmptyAuth.FullBytes = loadable, emptyAuth
	der, err := asn1.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("write a TPM's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: BlockType, Bytes: der}), nil
}

// parse reads the contents of a PEM block of type BlockType.
func parse(der []byte) (keyFile, error) {
	var f keyFile
	rest, err := asn1.Unmarshal(der, &f)
	switch {
	case err != nil || len(rest) > 0:
		return keyFile{}, errors.New("its contents are no TPM 2.0 key: it is cut or was altered")
	case !f.Type.Equal(loadable):
		return keyFile{}, fmt.Errorf("it is a TPM key of type %v: only one that the TPM has made itself (%v) can be used", f.Type, loadable)
	case len(f.Policy.FullBytes)+len(f.Secret.FullBytes)+len(f.AuthPolicy.FullBytes) > 0:
		return keyFile{}, errors.New("it is bound to a policy of the TPM: only a key without one can be used")
	case !bytes.HasPrefix(f.EmptyAuth.FullBytes, emptyAuth[:4]) || len(f.EmptyAuth.FullBytes) != len(emptyAuth) || f.EmptyAuth.FullBytes[4] == 0:
		return keyFile{}, errors.New("it asks for a password: only a key without one can be used")
	}
	return f, nil
}
