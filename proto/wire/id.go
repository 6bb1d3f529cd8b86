package wire

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// SessionID names one session: 128 random bits.
type SessionID [16]byte

// NewSessionID returns a random SessionID.
func NewSessionID() (id SessionID) {
	rand.Read(id[:])
	return id
}

// IsZero reports whether the id is all zero, which names nothing.
func (id SessionID) IsZero() bool { return id == SessionID{} }

// String returns the last 8 hexadecimal digits: enough to tell sessions apart in
// a log. The first ones of all tickets are the same.
func (id SessionID) String() string { return hex.EncodeToString(id[12:]) }

// MarshalText implements encoding.TextMarshaler with all 32 digits.
func (id SessionID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(id[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *SessionID) UnmarshalText(b []byte) error { return unhex(id[:], b, "session id") }

// GrantID names one grant: the first 128 bits of the SHA-256 of its signed
// permission.
type GrantID [16]byte

// IsZero reports whether the id is all zero, which names nothing.
func (id GrantID) IsZero() bool { return id == GrantID{} }

// String returns the first 8 hexadecimal digits.
func (id GrantID) String() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler with all 32 digits.
func (id GrantID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(id[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *GrantID) UnmarshalText(b []byte) error { return unhex(id[:], b, "grant id") }

// Secret is a key shared by a portal and a relay for one leg. It never prints.
type Secret [32]byte

// NewSecret returns a random Secret.
func NewSecret() (s Secret) {
	rand.Read(s[:])
	return s
}

// String hides the secret.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "(secret)" }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

func unhex(dst, src []byte, what string) error {
	if len(src) != 2*len(dst) {
		return fmt.Errorf("%s of %d digits: %d are needed", what, len(src), 2*len(dst))
	}
	_, err := hex.Decode(dst, src)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
