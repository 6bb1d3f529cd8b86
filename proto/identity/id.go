package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a certificate's holder does.
type Role string

// The roles.
const (
	Portal Role = "portal"
	Server Role = "server"
	Relay  Role = "relay"
	Admin  Role = "admin"
)

// MaxName is the longest name of a portal, relay, group or forward in bytes.
const MaxName = 63

// CheckName reports why s is not a name: 1 to 63 bytes of a-z, 0-9, '.' and
// '-', beginning and ending with a letter or digit. Names are compared byte
// for byte.
func CheckName(s string) error {
	if s == "" {
		return errors.New("empty name")
	}
	if len(s) > MaxName {
		return fmt.Errorf("name of %d bytes: at most %d are allowed", len(s), MaxName)
	}
	alnum := func(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
	if !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return fmt.Errorf("name %q: the first and the last character must be a-z or 0-9", s)
	}
	for i := range len(s) {
		if !alnum(s[i]) && s[i] != '.' && s[i] != '-' {
			return fmt.Errorf("name %q: only a-z, 0-9, '.' and '-' are allowed", s)
		}
	}
	return nil
}

// ID is one identity. The zero ID is nobody. IDs are comparable with ==.
type ID struct {
	Domain string
	Role   Role
	Name   string
}

// New returns the ID of its parts, checked.
func New(domain string, role Role, name string) (ID, error) {
	if err := CheckName(domain); err != nil {
		return ID{}, fmt.Errorf("domain: %w", err)
	}
	switch role {
	case Portal, Server, Relay, Admin:
	default:
		return ID{}, fmt.Errorf("unknown role %q: portal, server, relay and admin exist", string(role))
	}
	if err := CheckName(name); err != nil {
		return ID{}, err
	}
	return ID{domain, role, name}, nil
}

// String returns the URI.
func (id ID) String() string {
	return "spiffe://" + id.Domain + "/" + string(id.Role) + "/" + id.Name
}

// URL returns the URI as a certificate template wants it.
func (id ID) URL() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.Domain, Path: "/" + string(id.Role) + "/" + id.Name}
}

// Parse reads a URI. Only the exact form of String is accepted: no port, user,
// query, escape, upper case or slash at the end.
func Parse(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return ID{}, fmt.Errorf("identity %q: write spiffe://DOMAIN/ROLE/NAME", shorten(s))
	}
	id, err := New(parts[0], Role(parts[1]), parts[2])
	if err != nil {
		return ID{}, fmt.Errorf("identity %q: %w", shorten(s), err)
	}
	return id, nil
}

// FromCertificate returns the identity in cert: its one URI SAN. A certificate
// with none, with two, or with a name of any other kind beside it is refused.
func FromCertificate(cert *x509.Certificate) (ID, error) { return identityIn(cert.Extensions) }

// identityIn returns the identity in the extensions of a certificate or of a
// request for one.
func identityIn(extensions []pkix.Extension) (ID, error) {
	// crypto/x509 keeps a parsed URL, which has lost the difference between
	// several writings of it ("SPIFFE://", a '#' at the end): only the bytes
	// that were signed have it.
	for _, ext := range extensions {
		if !ext.Id.Equal(subjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(ext.Value, &names); err != nil || len(rest) > 0 {
			return ID{}, errors.New("certificate has a broken list of names")
		}
		if len(names) != 1 {
			return ID{}, fmt.Errorf("certificate has %d names, exactly one is needed: its identity", len(names))
		}
		if names[0].Class != asn1.ClassContextSpecific || names[0].Tag != tagURI || names[0].IsCompound {
			return ID{}, errors.New("certificate has a name that is no URI: its identity is needed instead")
		}
		return Parse(string(names[0].Bytes))
	}
	return ID{}, errors.New("certificate has no identity: a URI in its subject alternative name")
}

// subjectAltName is the extension of RFC 5280 section 4.2.1.6, tagURI the kind
// of name in it that is a URI.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

const tagURI = 6

// KeyHash is the SHA-256 of a public key in its SubjectPublicKeyInfo form:
// what a permission names a portal's key by.
type KeyHash [32]byte

// HashKey returns the KeyHash of a certificate's key.
func HashKey(cert *x509.Certificate) KeyHash { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// IsZero reports whether h is all zero, which is no key's hash.
func (h KeyHash) IsZero() bool { return h == KeyHash{} }

// String returns the first 16 hexadecimal digits.
func (h KeyHash) String() string { return hex.EncodeToString(h[:8]) }

// MarshalText implements encoding.TextMarshaler with all 64 digits.
func (h KeyHash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *KeyHash) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return fmt.Errorf("key hash of %d digits: %d are needed", len(b), 2*len(h))
	}
	if _, err := hex.Decode(h[:], b); err != nil {
		return fmt.Errorf("key hash: %w", err)
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
