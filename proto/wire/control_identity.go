package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"

	"github.com/netport/netport/proto/identity"
)

// The messages of this file keep certificates alive and take them back.

const (
	// MaxAuthorities is the most CA certificates that an Authorities names.
	MaxAuthorities = 8
	// maxCertificates bounds the certificates of one message, in bytes. They are
	// sent as they are: DER.
	maxCertificates = 11264

	authoritiesContext = "netport-authorities/1\x00"
)

// Renew asks for a new certificate of the sender's own identity; portal or relay
// to server. The request is signed by the key that the certificate is to have:
// the one that is held, or a new one.
//
//	request uint32
//	csr     blob     certificate request, DER, at most 4,096 bytes (identity.ParseRequest)
type Renew struct {
	Request uint32
	CSR     []byte
}

// Type implements Message.
func (Renew) Type() Type  { return TypeRenew }
func (Renew) fromPortal() {}
func (Renew) fromRelay()  {}

// AppendTo implements Message.
func (m Renew) AppendTo(b []byte) []byte {
	return AppendBlob(binary.BigEndian.AppendUint32(b, m.Request), m.CSR)
}

// ParseRenew reads a Renew.
func ParseRenew(b []byte) (Renew, error) {
	r := NewReader(b)
	return finish(Renew{Request: r.Uint32(), CSR: readDER(&r, identity.MaxRequest)}, &r)
}

// Renewed answers Renew; server to portal or relay.
//
//	request uint32
//	chain   count    1 to 4 certificates, leaf first: a blob of DER each, at most 11,264 bytes together
type Renewed struct {
	Request uint32
	Chain   [][]byte
}

// Type implements Message.
func (Renewed) Type() Type { return TypeRenewed }
func (Renewed) toPortal()  {}
func (Renewed) toRelay()   {}

// AppendTo implements Message.
func (m Renewed) AppendTo(b []byte) []byte {
	return appendCertificates(binary.BigEndian.AppendUint32(b, m.Request), m.Chain)
}

// ParseRenewed reads a Renewed.
func ParseRenewed(b []byte) (Renewed, error) {
	r := NewReader(b)
	return finish(Renewed{Request: r.Uint32(), Chain: readCertificates(&r, identity.MaxChain)}, &r)
}

// RenewRefused answers Renew; server to portal or relay. The certificate that is
// held goes on as it is. With ReasonWaiting the request is kept, and Renewed may follow
// for it as long as the connection lasts.
//
//	request uint32
//	reason  uint16
//	text    blob     detail for people, UTF-8, at most 256 bytes
type RenewRefused struct {
	Request uint32
	Reason  Reason
	Text    string
}

// Type implements Message.
func (RenewRefused) Type() Type { return TypeRenewRefused }
func (RenewRefused) toPortal()  {}
func (RenewRefused) toRelay()   {}

// AppendTo implements Message.
func (m RenewRefused) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseRenewRefused reads a RenewRefused.
func ParseRenewRefused(b []byte) (RenewRefused, error) {
	r := NewReader(b)
	return finish(RenewRefused{Request: r.Uint32(), Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}

// Authorities says which authorities the domain trusts; server to portal or
// relay after Welcome and after each change, and to who joins. It is taken only if
// the pinned policy key has signed it and its version is not below that of the one
// held. Whoever has a certificate that another key than the issuing one signed
// renews it soon.
//
//	version      uint64    counts the changes, from 1 on
//	issuing      [32]byte  SHA-256 of the public key that signs leaves now; zero: none in particular
//	certificates count     1 to 8 CA certificates: a blob of DER each, at most 11,264 bytes together
//	signature    [64]byte  Ed25519 by the policy key, of "netport-authorities/1", a zero byte, and all before it
type Authorities struct {
	Version      uint64
	Issuing      identity.KeyHash
	Certificates [][]byte
	Signature    [ed25519.SignatureSize]byte
}

// Sign returns m with the signature of the policy key.
func (m Authorities) Sign(policy ed25519.PrivateKey) Authorities {
	copy(m.Signature[:], ed25519.Sign(policy, m.signed()))
	return m
}

// SignedBy reports whether one of keys has signed m.
func (m Authorities) SignedBy(keys ...ed25519.PublicKey) bool {
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k, m.signed(), m.Signature[:]) {
			return true
		}
	}
	return false
}

func (m Authorities) signed() []byte { return m.appendBundle([]byte(authoritiesContext)) }

func (m Authorities) appendBundle(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, m.Version)
	return appendCertificates(append(b, m.Issuing[:]...), m.Certificates)
}

// Type implements Message.
func (Authorities) Type() Type { return TypeAuthorities }
func (Authorities) toPortal()  {}
func (Authorities) toRelay()   {}
func (Authorities) toJoiner()  {}

// AppendTo implements Message.
func (m Authorities) AppendTo(b []byte) []byte { return append(m.appendBundle(b), m.Signature[:]...) }

// ParseAuthorities reads an Authorities. It checks its form, not its signature.
func ParseAuthorities(b []byte) (Authorities, error) {
	r := NewReader(b)
	m := Authorities{Version: r.Uint64()}
	r.Copy(m.Issuing[:])
	m.Certificates = readCertificates(&r, MaxAuthorities)
	r.Copy(m.Signature[:])
	if m.Version == 0 {
		r.Reject()
	}
	return finish(m, &r)
}

// RevocationsHeld says which revocations the sender holds; portal or relay to
// server, right after Welcome. The server answers with those that are newer, and
// RevocationsComplete; where that is below the epoch held, 0 is sent, for all.
//
//	epoch uint64   of the newest; 0: none
type RevocationsHeld struct{ Epoch uint64 }

// Type implements Message.
func (RevocationsHeld) Type() Type  { return TypeRevocationsHeld }
func (RevocationsHeld) fromPortal() {}
func (RevocationsHeld) fromRelay()  {}

// AppendTo implements Message.
func (m RevocationsHeld) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint64(b, m.Epoch)
}

// ParseRevocationsHeld reads a RevocationsHeld.
func ParseRevocationsHeld(b []byte) (RevocationsHeld, error) {
	r := NewReader(b)
	return finish(RevocationsHeld{Epoch: r.Uint64()}, &r)
}

// Revocation takes certificates back (identity.Revocation); server to portal or
// relay. It holds at once and for ever.
//
//	epoch  uint64
//	kind   uint8     1, 2 or 3
//	kind 1, a name:
//	  role   uint8   1 portal, 2 server, 3 relay, 4 admin
//	  name   blob
//	  before uint64  certificates that began before this time
//	kind 2, a key:
//	  key    [32]byte  SHA-256 of the public key, of a leaf or of an authority
//	kind 3, one certificate:
//	  issuer [32]byte  SHA-256 of the public key of its authority
//	  serial blob      1 to 40 bytes, the first not zero
type Revocation struct{ identity.Revocation }

const (
	revokedName = 1
	revokedKey  = 2
	revokedOne  = 3
)

// roles are the roles by their numbers on the wire, from 1 on. Append only.
var roles = [...]identity.Role{identity.Portal, identity.Server, identity.Relay, identity.Admin}

// AppendRole appends the number of a role, one byte.
func AppendRole(b []byte, role identity.Role) []byte {
	for i, r := range roles {
		if r == role {
			return append(b, byte(i+1))
		}
	}
	return append(b, 0)
}

// ReadRole reads what AppendRole appends.
func ReadRole(r *Reader) identity.Role {
	n := r.Uint8()
	if n == 0 || int(n) > len(roles) {
		r.Reject()
		return ""
	}
	return roles[n-1]
}

// Type implements Message.
func (Revocation) Type() Type { return TypeRevocation }
func (Revocation) toPortal()  {}
func (Revocation) toRelay()   {}

// AppendTo implements Message.
func (m Revocation) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, m.Epoch)
	switch {
	case m.Name != "":
		b = AppendBlob(AppendRole(append(b, revokedName), m.Role), []byte(m.Name))
		return binary.BigEndian.AppendUint64(b, uint64(m.Before.Unix()))
	case !m.Key.IsZero():
		return append(append(b, revokedKey), m.Key[:]...)
	}
	return AppendBlob(append(append(b, revokedOne), m.Issuer[:]...), []byte(m.Serial))
}

// ParseRevocation reads a Revocation.
func ParseRevocation(b []byte) (Revocation, error) {
	r := NewReader(b)
	var m Revocation
	m.Epoch = r.Uint64()
	switch r.Uint8() {
	case revokedName:
		m.Role, m.Name = ReadRole(&r), readName(&r)
		m.Before = time.Unix(int64(readUnix(&r)), 0).UTC()
	case revokedKey:
		r.Copy(m.Key[:])
	case revokedOne:
		r.Copy(m.Issuer[:])
		m.Serial = string(r.Blob(identity.MaxSerial))
	}
	if m.Revocation.Check() != nil {
		r.Reject()
	}
	return finish(m, &r)
}

// RevocationsComplete follows the last Revocation that answers RevocationsHeld;
// server to portal or relay. An epoch below the one held means that the server
// has lost revocations: whoever holds them goes on holding them.
//
//	epoch uint64   of the server's newest; 0: it has none
type RevocationsComplete struct{ Epoch uint64 }

// Type implements Message.
func (RevocationsComplete) Type() Type { return TypeRevocationsComplete }
func (RevocationsComplete) toPortal()  {}
func (RevocationsComplete) toRelay()   {}

// AppendTo implements Message.
func (m RevocationsComplete) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint64(b, m.Epoch)
}

// ParseRevocationsComplete reads a RevocationsComplete.
func ParseRevocationsComplete(b []byte) (RevocationsComplete, error) {
	r := NewReader(b)
	return finish(RevocationsComplete{Epoch: r.Uint64()}, &r)
}

// readDER reads a blob that is not empty, as a copy.
func readDER(r *Reader, limit int) []byte {
	b := r.Blob(limit)
	if len(b) == 0 {
		r.Reject()
	}
	return append([]byte(nil), b...)
}

func appendCertificates(b []byte, certs [][]byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(certs)))
	for _, c := range certs {
		b = AppendBlob(b, c)
	}
	return b
}

// readCertificates reads 1 to limit certificates.
func readCertificates(r *Reader, limit int) [][]byte {
	var certs [][]byte
	left := maxCertificates
	for range r.Count(limit, 2+1) {
		c := readDER(r, left)
		left -= len(c)
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		r.Reject()
	}
	return certs
}

// CheckCertificates reports whether certificates fit a message.
func CheckCertificates(certs [][]byte) bool {
	n := 0
	for _, c := range certs {
		n += len(c)
	}
	return n <= maxCertificates
}
