package tpm

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/netport/netport/portal/internal/keystore/turns"
)

const (
	// signTime is how long a handshake waits for its signature. A TPM takes some
	// tenths of a second for one, or for a primary key.
	signTime = 10 * time.Second
	// makeTime is how long the making or the first loading of a key may take.
	makeTime = time.Minute
)

// TPM is one TPM. It may be used by many goroutines.
type TPM struct {
	path     string
	signTime time.Duration
	makeTime time.Duration
	turns    turns.Turns
	open     *session // while somebody waits; owned by whose turn it is
}

// New returns the TPM at a device file or a Unix socket. Neither is opened before it is
// used.
func New(path string) *TPM {
	t := &TPM{path: path, signTime: signTime, makeTime: makeTime}
	t.turns.Idle = t.close
	return t
}

func (t *TPM) close() {
	if t.open != nil {
		t.open.close()
		t.open = nil
	}
}

// use runs f in its turn, with the device open and the key k loaded, unless that is
// nil. What was open when something failed is not used again.
func (t *TPM) use(limit time.Duration, k *key, f func(*session) error) error {
	end := time.Now().Add(limit)
	err := t.turns.Do(limit, func() (err error) {
		if t.open == nil || t.open.of != k {
			t.close()
			if t.open, err = open(t.path, end); err != nil {
				return err
			}
			if k != nil {
				err = t.open.load(k)
			}
		}
		if err == nil {
			t.open.tpm.until(end)
			err = f(t.open)
		}
		if err != nil {
			t.close()
		}
		return err
	})
	if errors.Is(err, turns.ErrTime) {
		err = fmt.Errorf("%w (%v)", err, limit)
	}
	if err != nil {
		return fmt.Errorf("use the TPM %s: %w", t.path, explain(err))
	}
	return nil
}

// Make makes a key, and returns its file.
func (t *TPM) Make() ([]byte, crypto.Signer, error) {
	k, file := &key{tpm: t}, []byte(nil)
	if err := t.use(t.makeTime, nil, func(s *session) (err error) {
		file, err = s.make(k)
		return err
	}); err != nil {
		return nil, nil, err
	}
	return file, k, nil
}

// Load returns the key of a PEM block of type BlockType, after the TPM has loaded it
// once.
func (t *TPM) Load(der []byte) (crypto.Signer, error) {
	f, err := parse(der)
	if err != nil {
		return nil, err
	}
	k, err := newKey(t, f)
	if err != nil {
		return nil, err
	}
	if err := t.use(t.makeTime, k, func(*session) error { return nil }); err != nil {
		return nil, err
	}
	return k, nil
}

// explain says what to do about an error.
func explain(err error) error {
	for _, e := range []struct {
		code   tpm2.TPMRC
		advice string
	}{
		{tpm2.TPMRCIntegrity, "the key was made by another TPM, or this one was cleared since: this portal has to join anew, with another folder"},
		{tpm2.TPMRCLockout, "it is in lockout after too many wrong passwords: wait until that has passed, or clear it (tpm2_dictionarylockout --clear-lockout)"},
		{tpm2.TPMRCBadAuth, "its owner has set a password: have the owner make the storage key persistent (tpm2_evictcontrol, at 0x81000001) without one"},
		{tpm2.TPMRCAuthFail, "the storage key has a password: only one without can be used"},
		{tpm2.TPMRCHandle, "the storage key that wraps the key is gone from it"},
		{tpm2.TPMRCObjectMemory, "others have filled it with keys: use the device that shares it, such as " + Device},
		{tpm2.TPMRCInitialize, "nobody has started it (TPM2_Startup), as the firmware does"},
	} {
		if errors.Is(err, e.code) {
			return fmt.Errorf("%s (%w)", e.advice, err)
		}
	}
	return err
}
