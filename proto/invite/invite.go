// Package invite is the join token: what a server prints once for a portal or
// relay that is to be, and what that then enrols with.
//
// It is text of one line, for a terminal, a file or a QR code:
//
//	netport-join-BASE64URL
//
//	format    uint8     2
//	role      uint8     1 portal, 3 relay
//	name      blob
//	authority [32]byte  fingerprint of the CA certificate above the server's
//	policy    [32]byte  the policy key, Ed25519
//	id        [16]byte  what the server finds the token by
//	secret    [32]byte  of which the server keeps a hash alone
//	servers   count     1 to 16 texts, each "host" or "host:port"
//	check     [4]byte   the first of the SHA-256 of all before it
//
// The check tells a torn paste from a token that the server does not know.
package invite

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	prefix = "netport-join-"
	format = 2
	check  = 4
	// MaxToken is the longest token that is read, in bytes.
	MaxToken = 8192
)

// Token lets its holder enrol as one portal, relay or admin. It never prints but by
// Reveal.
type Token struct {
	Role      identity.Role // anything but identity.Server
	Name      string
	Authority identity.Fingerprint // of the CA above the server's certificate
	Policy    ed25519.PublicKey    // the policy key of the domain
	ID        wire.TokenID
	Secret    wire.Secret
	Servers   []string // 1 to wire.MaxServers, as config files name them
}

// New returns a token with a random id and secret.
func New(role identity.Role, name string, authority identity.Fingerprint, policy ed25519.PublicKey, servers []string) (Token, error) {
	t := Token{Role: role, Name: name, Authority: authority, Policy: policy, Secret: wire.NewSecret(), Servers: servers}
	rand.Read(t.ID[:])
	return t, t.validate()
}

func (t Token) validate() error {
	if err := identity.CheckName(t.Name); err != nil {
		return err
	}
	if t.Role != identity.Portal && t.Role != identity.Relay && t.Role != identity.Admin {
		return fmt.Errorf("a %q cannot join: portals, relays and admins can", string(t.Role))
	}
	if len(t.Policy) != ed25519.PublicKeySize {
		return errors.New("a token without the policy key")
	}
	if n := len(t.Servers); n == 0 || n > wire.MaxServers {
		return fmt.Errorf("a token with %d servers: 1 to %d are allowed", n, wire.MaxServers)
	}
	for _, s := range t.Servers {
		if err := control.CheckServer(s); err != nil {
			return fmt.Errorf("server %q: %w", s, err)
		}
	}
	if t.ID.IsZero() || t.Secret == (wire.Secret{}) {
		return errors.New("a token without an id or a secret")
	}
	return nil
}

// Reveal returns the text of the token: for who is to hold it, and for nobody's log.
func (t Token) Reveal() string {
	b := wire.AppendRole([]byte{format}, t.Role)
	b = wire.AppendBlob(b, []byte(t.Name))
	b = append(append(b, t.Authority[:]...), t.Policy...)
	b = append(append(b, t.ID[:]...), t.Secret[:]...)
	b = wire.AppendServers(b, t.Servers)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sumOf(b)...))
}

// Parse reads a token; white space around it and line breaks do not count. Its errors never
// hold any of the text.
func Parse(text []byte) (Token, error) {
	text, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(prefix))
	if !ok {
		return Token{}, fmt.Errorf("read the join token: what was given is none; a token begins with %q", prefix)
	}
	if len(text) > MaxToken {
		return Token{}, errors.New("read the join token: it is too long for one")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) < check {
		return Token{}, errTorn
	}
	b, sum := b[:len(b)-check], b[len(b)-check:]
	if !bytes.Equal(sum, sumOf(b)) {
		return Token{}, errTorn
	}
	r := wire.NewReader(b)
	if f := r.Uint8(); f != format {
		return Token{}, fmt.Errorf("read the join token: it is of format %d, this program reads %d: install the version of the server", f, format)
	}
	t := Token{Role: wire.ReadRole(&r), Name: string(r.Blob(identity.MaxName)), Policy: make(ed25519.PublicKey, ed25519.PublicKeySize)}
	r.Copy(t.Authority[:])
	r.Copy(t.Policy)
	r.Copy(t.ID[:])
	r.Copy(t.Secret[:])
	t.Servers = wire.ReadServers(&r)
	err = r.Done()
	if err == nil {
		err = t.validate()
	}
	if err != nil {
		return Token{}, fmt.Errorf("read the join token: %w", err)
	}
	return t, nil
}

var errTorn = errors.New("read the join token: it is not whole; copy it again, from \"" + prefix + "\" to its end")

func sumOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:check]
}

// Read reads a token from r, to its end: a file, or standard input.
func Read(r io.Reader) (Token, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxToken+1024))
	if err != nil {
		return Token{}, fmt.Errorf("read the join token: %w", err)
	}
	return Parse(b)
}

// Looks reports whether a token seems to be in s: whoever sees one where none should
// be says so without repeating it.
func Looks(s string) bool { return looks.MatchString(s) }

var looks = regexp.MustCompile(prefix + `[A-Za-z0-9_-]{40}`) // more than the name of a file goes on with

// String hides the token, all but whom it is for.
func (t Token) String() string { return fmt.Sprintf("(join token %s of %s %s)", t.ID, t.Role, t.Name) }

// Format implements fmt.Formatter: no verb prints more than String.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// LogValue hides the token from slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }
