package ca

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"

	"github.com/netport/netport/proto/identity"
)

// encryptedType is the PEM type of a PKCS #8 key that is encrypted (RFC 7468,
// section 11), as openssl writes it too.
const encryptedType = "ENCRYPTED PRIVATE KEY"

// strength is how a key is encrypted: PBES2 (RFC 8018) with AES-256 and PBKDF2.
var strength = &pkcs8.Opts{
	Cipher:  pkcs8.AES256CBC,
	KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 600_000, HMACHash: crypto.SHA256},
}

// SaveKey writes a new private key with mode 0600, encrypted if passphraseFile is
// not empty. It never overwrites a file.
func SaveKey(file string, key crypto.Signer, passphraseFile string) error {
	if passphraseFile == "" {
		return identity.SaveKey(file, key)
	}
	passphrase, err := readPassphrase(passphraseFile)
	if err != nil {
		return err
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, strength)
	if err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	return identity.CreateFile(file, pem.EncodeToMemory(&pem.Block{Type: encryptedType, Bytes: der}), 0o600)
}

// LoadKey reads a private key that may be encrypted; the passphrase is then in
// passphraseFile. Both files are for their owner alone.
func LoadKey(file, passphraseFile string) (crypto.Signer, error) {
	b, err := identity.ReadSecret(file)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != encryptedType {
		return identity.LoadKey(file)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("read key %s: something follows the key", file)
	}
	if passphraseFile == "" {
		return nil, fmt.Errorf("read key %s: it is encrypted: name the file that holds its passphrase as ca_passphrase_file", file)
	}
	passphrase, err := readPassphrase(passphraseFile)
	if err != nil {
		return nil, err
	}
	key, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, passphrase)
	if err != nil {
		return nil, fmt.Errorf("read key %s with the passphrase in %s: %s", file, passphraseFile, strings.TrimPrefix(err.Error(), "pkcs8: "))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key %s: a key of type %T cannot sign", file, key)
	}
	return signer, nil
}

// readPassphrase reads the first line of a file.
func readPassphrase(file string) ([]byte, error) {
	b, err := identity.ReadSecret(file)
	if err != nil {
		return nil, err
	}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("read passphrase %s: it must be one line", file)
	}
	return line, nil
}
