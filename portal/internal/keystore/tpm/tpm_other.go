//go:build !linux

package tpm

import (
	"crypto"
	"errors"
)

// TPM stands for a TPM that cannot be used.
type TPM struct{}

var errSystem = errors.New("keys in a TPM can be used on Linux only: this portal needs its key in a file")

// New returns a TPM that says so.
func New(string) *TPM { return &TPM{} }

// Make fails.
func (*TPM) Make() ([]byte, crypto.Signer, error) { return nil, nil, errSystem }

// Load fails, in words of the key first.
func (*TPM) Load(der []byte) (crypto.Signer, error) {
	if _, err := parse(der); err != nil {
		return nil, err
	}
	return nil, errSystem
}
