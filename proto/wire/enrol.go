package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

	"github.com/netport/netport/proto/identity"
)

// The messages of this file are those of the enrolment protocol
// (identity.ProtocolEnrol), in the framing of control messages. Who joins sends
// one Enrol; the server answers with any number of EnrolWait, and then with
// Authorities and Enrolled, or with EnrolRefused.

// TokenID names a join token: 128 random bits. All zero names none.
type TokenID [16]byte

// IsZero reports whether the id is all zero.
func (id TokenID) IsZero() bool { return id == TokenID{} }

// String returns the last 8 hexadecimal digits.
func (id TokenID) String() string { return hex.EncodeToString(id[12:]) }

// MarshalText implements encoding.TextMarshaler with all 32 digits.
func (id TokenID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(id[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *TokenID) UnmarshalText(b []byte) error { return unhex(id[:], b, "token id") }

// Enrol asks for a certificate; who joins to server. With a token the identity is
// the one that the token was made for. Without one (token and secret all zero) it
// is that of the certificate that was presented in the handshake, which may have
// expired.
//
//	version  uint16    highest version of the control protocol it speaks
//	software blob      name and version of the program, UTF-8, at most 64 bytes
//	token    [16]byte
//	secret   [32]byte  of the token
//	csr      blob      certificate request, DER, at most 4,096 bytes (identity.ParseRequest)
type Enrol struct {
	Version  uint16
	Software string
	Token    TokenID
	Secret   Secret
	CSR      []byte
}

// Type implements Message.
func (Enrol) Type() Type  { return TypeEnrol }
func (Enrol) fromJoiner() {}

// AppendTo implements Message.
func (m Enrol) AppendTo(b []byte) []byte {
	b = AppendText(binary.BigEndian.AppendUint16(b, m.Version), m.Software, maxSoftware)
	b = append(append(b, m.Token[:]...), m.Secret[:]...)
	return AppendBlob(b, m.CSR)
}

// ParseEnrol reads an Enrol.
func ParseEnrol(b []byte) (Enrol, error) {
	r := NewReader(b)
	m := Enrol{Version: r.Uint16(), Software: r.Text(maxSoftware)}
	r.Copy(m.Token[:])
	r.Copy(m.Secret[:])
	m.CSR = readDER(&r, identity.MaxRequest)
	if m.Token.IsZero() != (m.Secret == Secret{}) {
		r.Reject()
	}
	return finish(m, &r)
}

// EnrolWait says that an operator has to approve the request, and that the server
// is still there; server to who joins, at once and then every 30 seconds.
//
//	key [32]byte  SHA-256 of the public key of the request, as the operator sees it
type EnrolWait struct{ Key identity.KeyHash }

// Type implements Message.
func (EnrolWait) Type() Type { return TypeEnrolWait }
func (EnrolWait) toJoiner()  {}

// AppendTo implements Message.
func (m EnrolWait) AppendTo(b []byte) []byte { return append(b, m.Key[:]...) }

// ParseEnrolWait reads an EnrolWait.
func ParseEnrolWait(b []byte) (EnrolWait, error) {
	r := NewReader(b)
	var m EnrolWait
	r.Copy(m.Key[:])
	return finish(m, &r)
}

// Enrolled gives the certificate, and what its holder needs to begin; server to
// who joins, last, after Authorities.
//
//	time      uint64   the server's clock, Unix time in seconds
//	chain     count    1 to 4 certificates, leaf first: a blob of DER each, at most 11,264 bytes together
//	policy    count    1 to 4 public keys (Ed25519, 32 bytes each) that sign permissions and authorities
//	servers   count    1 to 16 texts, each "host" or "host:port" of at most 260 bytes
//	addresses count    at most 16 IP addresses: of a relay, as portals will be told them
type Enrolled struct {
	Time      uint64
	Chain     [][]byte
	Policy    []ed25519.PublicKey
	Servers   []string
	Addresses []netip.Addr
}

const maxPolicyKeys = 4

// Type implements Message.
func (Enrolled) Type() Type { return TypeEnrolled }
func (Enrolled) toJoiner()  {}

// AppendTo implements Message.
func (m Enrolled) AppendTo(b []byte) []byte {
	b = appendCertificates(binary.BigEndian.AppendUint64(b, m.Time), m.Chain)
	b = appendKeys(b, m.Policy)
	return appendAddrs(AppendServers(b, m.Servers), m.Addresses)
}

// ParseEnrolled reads an Enrolled.
func ParseEnrolled(b []byte) (Enrolled, error) {
	r := NewReader(b)
	m := Enrolled{Time: readUnix(&r), Chain: readCertificates(&r, identity.MaxChain), Policy: readKeys(&r, maxPolicyKeys), Servers: ReadServers(&r), Addresses: readAddrs(&r)}
	if len(m.Policy) == 0 {
		r.Reject()
	}
	return finish(m, &r)
}

// EnrolRefused ends an enrolment; server to who joins, last. Every token that is
// wrong, whatever is wrong with it, is refused in the same words.
//
//	reason uint16
//	text   blob     detail for people, UTF-8, at most 256 bytes
type EnrolRefused struct {
	Reason Reason
	Text   string
}

// Type implements Message.
func (EnrolRefused) Type() Type { return TypeEnrolRefused }
func (EnrolRefused) toJoiner()  {}

// AppendTo implements Message.
func (m EnrolRefused) AppendTo(b []byte) []byte {
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseEnrolRefused reads an EnrolRefused.
func ParseEnrolRefused(b []byte) (EnrolRefused, error) {
	r := NewReader(b)
	return finish(EnrolRefused{Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}
