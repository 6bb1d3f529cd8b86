//go:build pkcs11 && cgo

package pkcs11

import (
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/netport/netport/portal/internal/keystore/turns"
)

const (
	// signTime is how long a handshake waits for its signature.
	signTime = 10 * time.Second
	// makeTime is how long the making, removing or first loading of a key may take.
	makeTime = time.Minute

	idLen = 16
)

// Tokens are the tokens of all modules. They may be used by many goroutines; modules are
// used by one at a time. Their zero value works.
type Tokens struct {
	turns   turns.Turns
	open    map[URI]*session // by token; owned by whose turn it is
	refused map[URI]string   // a PIN that a token has refused: each try may be its last; owned likewise
}

// use runs f in its turn, with a session at the token of u. What was open when
// something failed is not used again.
func (t *Tokens) use(limit time.Duration, u URI, f func(*session) error) error {
	token := u
	token.Object, token.ID = "", ""
	err := t.turns.Do(limit, func() error {
		s := t.open[token]
		if s == nil {
			var err error
			if s, err = t.connect(token); err != nil {
				return err
			}
			if t.open == nil {
				t.open = map[URI]*session{}
			}
			t.open[token] = s
		}
		err := f(s)
		if err != nil {
			s.close()
			delete(t.open, token)
		}
		return err
	})
	if errors.Is(err, turns.ErrTime) {
		err = fmt.Errorf("%w (%v)", err, limit)
	}
	if err != nil {
		return fmt.Errorf("use the PKCS #11 token %q by %s: %w", u.Token, u.Module, explain(err))
	}
	return nil
}

// Make makes a key with the label that u has, and returns its file.
func (t *Tokens) Make(u URI) ([]byte, crypto.Signer, error) {
	if u.ID != "" {
		return nil, nil, errors.New(`PKCS #11 URI: "id" is drawn for each new key: leave it out`)
	}
	id := make([]byte, idLen)
	rand.Read(id)
	u.ID = string(id)
	file, err := u.encode()
	if err != nil {
		return nil, nil, err
	}
	k := &key{tokens: t, uri: u}
	if err := t.use(makeTime, u, func(s *session) (err error) {
		k.ecdsa, err = s.generate(u)
		return err
	}); err != nil {
		return nil, nil, err
	}
	return file, k, nil
}

// MakeLike makes a key beside that of a PEM block of type BlockType.
func (t *Tokens) MakeLike(der []byte) ([]byte, crypto.Signer, error) {
	u, err := decode(der)
	if err != nil {
		return nil, nil, err
	}
	u.ID = ""
	return t.Make(u)
}

// Load returns the key of a PEM block of type BlockType, after it was found.
func (t *Tokens) Load(der []byte) (crypto.Signer, error) {
	u, err := decode(der)
	if err != nil {
		return nil, err
	}
	k := &key{tokens: t, uri: u}
	if err := t.use(makeTime, u, func(s *session) (err error) {
		k.ecdsa, err = s.public(u)
		if err == nil {
			_, err = s.private(u)
		}
		return err
	}); err != nil {
		return nil, err
	}
	return k, nil
}

// Remove destroys the key of a PEM block of type BlockType.
func (t *Tokens) Remove(der []byte) error {
	u, err := decode(der)
	if err != nil {
		return err
	}
	return t.use(makeTime, u, func(s *session) error { return s.destroy(u) })
}

// explain says what to do about an error of a module.
func explain(err error) error {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return err
	}
	if advice, ok := map[pkcs11.Error]string{
		pkcs11.CKR_PIN_INCORRECT:            "the PIN is wrong; it is not tried again before the file of pin-source has another",
		pkcs11.CKR_PIN_LOCKED:               "its PIN is locked after too many wrong ones: unlock it with the tool of its maker",
		pkcs11.CKR_USER_PIN_NOT_INITIALIZED: "it has no user PIN yet: initialise it first",
		pkcs11.CKR_USER_NOT_LOGGED_IN:       "it wants a PIN: name a file that has it, with pin-source=file:/PATH",
		pkcs11.CKR_TOKEN_NOT_PRESENT:        "it is not there any more: put it back",
		pkcs11.CKR_DEVICE_REMOVED:           "it is not there any more: put it back",
		pkcs11.CKR_TOKEN_WRITE_PROTECTED:    "it is write-protected: no key can be made on it",
		pkcs11.CKR_MECHANISM_INVALID:        "it has no ECDSA P-256 keys",
		pkcs11.CKR_CURVE_NOT_SUPPORTED:      "it has no ECDSA P-256 keys",
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: "the module has stopped",
	}[code]; ok {
		return fmt.Errorf("%s (%w)", advice, err)
	}
	return err
}
