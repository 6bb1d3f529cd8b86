// Package pkcs11 keeps the private key of a portal in a PKCS #11 token, such as an HSM
// or a smart card: an ECDSA P-256 key that is made there and cannot be read out. What is
// on disk is the key's URI (RFC 7512), in the PEM form that OpenSSL's pkcs11-provider
// reads too.
//
// A PKCS #11 module is a C library, so this needs cgo and the build tag "pkcs11"; a
// program without says so.
package pkcs11

import (
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

const (
	// Scheme begins every URI.
	Scheme = "pkcs11:"
	// BlockType is the PEM type of a key file.
	BlockType = "PKCS#11 PROVIDER URI"

	maxURI = 4096
)

// URI names a token and a key on it.
type URI struct {
	Token, Manufacturer, Model, Serial string // of the token; empty: any
	Object                             string // label of the key
	ID                                 string // of the key, bytes
	Module                             string // file
	PIN                                string // file; empty: the token asks for none
}

// attribute is where a URI has one of its attributes.
type attribute struct {
	name  string
	query bool
	value *string
}

func (u *URI) attributes() []attribute {
	return []attribute{
		{"token", false, &u.Token}, {"manufacturer", false, &u.Manufacturer}, {"model", false, &u.Model}, {"serial", false, &u.Serial},
		{"object", false, &u.Object}, {"id", false, &u.ID}, {"module-path", true, &u.Module}, {"pin-source", true, &u.PIN},
	}
}

// ParseURI reads a URI that names a token, a key by its label, and the module's file.
func ParseURI(s string) (URI, error) {
	u, err := parseURI(s)
	if err != nil {
		return URI{}, fmt.Errorf("PKCS #11 URI: %w", err) // without the text: there may be a PIN in it
	}
	return u, nil
}

func parseURI(s string) (URI, error) {
	var u URI
	rest, ok := strings.CutPrefix(s, Scheme)
	if !ok || len(s) > maxURI {
		return URI{}, fmt.Errorf(`it must begin with %q and be at most %d bytes long`, Scheme, maxURI)
	}
	path, query, _ := strings.Cut(rest, "?")
	if err := u.read(path, ";", false); err != nil {
		return URI{}, err
	}
	if err := u.read(query, "&", true); err != nil {
		return URI{}, err
	}
	u.PIN = strings.TrimPrefix(strings.TrimPrefix(u.PIN, "file:"), "//")
	switch {
	case u.Token == "" && u.Serial == "":
		return URI{}, errors.New(`it names no token: write "token=LABEL"`)
	case u.Object == "":
		return URI{}, errors.New(`it names no key: write "object=LABEL"`)
	case !filepath.IsAbs(u.Module):
		return URI{}, errors.New(`it names no module: write "?module-path=/PATH/OF/MODULE.so"`)
	case u.PIN != "" && !filepath.IsAbs(u.PIN):
		return URI{}, errors.New(`the PIN's file needs its whole path: write "pin-source=file:/PATH"`)
	}
	return u, nil
}

// read reads the attributes of the path or of the query.
func (u *URI) read(text, separator string, query bool) error {
	if text == "" {
		return nil
	}
next:
	for part := range strings.SplitSeq(text, separator) {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil || value == "":
			return fmt.Errorf("attribute %q has no value, or one with a broken %%-escape", name)
		case query && name == "pin-value":
			return errors.New(`a PIN in it can be read by others: write it into a file of mode 0600 and name that with "pin-source=file:/PATH"`)
		case !query && name == "type" && value == "private":
			continue
		}
		for _, a := range u.attributes() {
			if a.name != name || a.query != query {
				continue
			}
			if *a.value != "" {
				return fmt.Errorf("attribute %q is there twice", name)
			}
			*a.value = value
			continue next
		}
		return fmt.Errorf("attribute %q is not known here", name)
	}
	return nil
}

// String returns the URI, as ParseURI reads it.
func (u URI) String() string {
	if u.PIN != "" {
		u.PIN = "file:" + u.PIN
	}
	var parts [2][]string
	for _, a := range u.attributes() {
		if *a.value == "" {
			continue
		}
		in := 0
		if a.query {
			in = 1
		}
		parts[in] = append(parts[in], a.name+"="+escape(*a.value, a.name == "id"))
	}
	return Scheme + strings.Join(parts[0], ";") + ";type=private?" + strings.Join(parts[1], "&")
}

// escape escapes what is not plain, or all.
func escape(s string, all bool) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:"
	var b strings.Builder
	for i := range len(s) {
		if !all && strings.IndexByte(plain, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{s[i]})))
		}
	}
	return b.String()
}

// file is the ASN.1 form of a URI.
type file struct {
	Description asn1.RawValue // VisibleString
	URI         string        `asn1:"utf8"`
}

const (
	description      = "PKCS#11 Provider URI v1.0"
	tagVisibleString = 26
)

// encode returns the file of a key.
func (u URI) encode() ([]byte, error) {
	der, err := asn1.Marshal(file{asn1.RawValue{Tag: tagVisibleString, Bytes: []byte(description)}, u.String()})
	if err != nil {
		return nil, fmt.Errorf("write a PKCS #11 key's URI: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: BlockType, Bytes: der}), nil
}

// decode reads the contents of a PEM block of type BlockType, which names one key
// exactly.
func decode(der []byte) (URI, error) {
	var f file
	rest, err := asn1.Unmarshal(der, &f)
	if err != nil || len(rest) > 0 || f.Description.Tag != tagVisibleString || string(f.Description.Bytes) != description {
		return URI{}, errors.New("its contents are no PKCS #11 URI: it is cut or was altered")
	}
	u, err := ParseURI(f.URI)
	if err == nil && u.ID == "" {
		err = errors.New(`PKCS #11 URI: it has no "id", by which the key is found`)
	}
	return u, err
}
