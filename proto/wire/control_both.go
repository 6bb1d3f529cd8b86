package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"

	"github.com/netport/netport/proto/identity"
)

// ControlVersion is the version of the control protocol spoken here. Version 1
// knew no packet mode, version 2 no tickets and no moves of sessions, version 3 no
// renewals and no revocations; in version 4 nobody had signed a policy's version,
// and in version 5 the server handed candidates on.
const ControlVersion = 6

const (
	maxSoftware  = 64
	maxStampKeys = 8
)

// Hello is the first message of a portal or relay. Who it is was proven by its
// certificate; a Hello says nothing of it.
//
//	version  uint16   highest version of the control protocol it speaks
//	software blob     name and version of the program, UTF-8, at most 64 bytes
type Hello struct {
	Version  uint16
	Software string
}

// Type implements Message.
func (Hello) Type() Type  { return TypeHello }
func (Hello) fromPortal() {}
func (Hello) fromRelay()  {}

// AppendTo implements Message.
func (m Hello) AppendTo(b []byte) []byte {
	return AppendText(binary.BigEndian.AppendUint16(b, m.Version), m.Software, maxSoftware)
}

// ParseHello reads a Hello.
func ParseHello(b []byte) (Hello, error) {
	r := NewReader(b)
	return finish(Hello{Version: r.Uint16(), Software: r.Text(maxSoftware)}, &r)
}

// Welcome answers Hello. Where the versions do not meet, the server sends
// Goodbye with ReasonVersion and both numbers instead.
//
//	version uint16   the version both speak from here on
//	time    uint64   the server's clock, Unix time in seconds, before the year 10000
//	keys    count    public keys (Ed25519, 32 bytes each) that stamp grants, at most 8
//	seen    address  where the server sees the connection come from; of length 0: it does not know
type Welcome struct {
	Version uint16
	Time    uint64
	Stamp   []ed25519.PublicKey
	Seen    netip.Addr
}

// Type implements Message.
func (Welcome) Type() Type { return TypeWelcome }
func (Welcome) toPortal()  {}
func (Welcome) toRelay()   {}

// AppendTo implements Message.
func (m Welcome) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, m.Version)
	return AppendAddr(appendKeys(binary.BigEndian.AppendUint64(b, m.Time), m.Stamp), m.Seen)
}

// ParseWelcome reads a Welcome.
func ParseWelcome(b []byte) (Welcome, error) {
	r := NewReader(b)
	return finish(Welcome{Version: r.Uint16(), Time: readUnix(&r), Stamp: readKeys(&r, maxStampKeys), Seen: r.Addr()}, &r)
}

// maxUnix is the last second of the year 9999: no time on the wire is later.
const maxUnix = 253402300799

func readUnix(r *Reader) uint64 {
	n := r.Uint64()
	if n > maxUnix {
		r.Reject()
	}
	return n
}

func appendKeys(b []byte, keys []ed25519.PublicKey) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(keys)))
	for _, k := range keys {
		b = append(b, k...)
	}
	return b
}

func readKeys(r *Reader, limit int) []ed25519.PublicKey {
	var keys []ed25519.PublicKey
	for range r.Count(limit, ed25519.PublicKeySize) {
		k := make(ed25519.PublicKey, ed25519.PublicKeySize)
		r.Copy(k)
		keys = append(keys, k)
	}
	return keys
}

// Ping asks for a Pong with the same token.
//
//	token uint64
type Ping struct{ Token uint64 }

// Type implements Message.
func (Ping) Type() Type  { return TypePing }
func (Ping) fromPortal() {}
func (Ping) toPortal()   {}
func (Ping) fromRelay()  {}
func (Ping) toRelay()    {}

// AppendTo implements Message.
func (m Ping) AppendTo(b []byte) []byte { return binary.BigEndian.AppendUint64(b, m.Token) }

// ParsePing reads a Ping.
func ParsePing(b []byte) (Ping, error) {
	r := NewReader(b)
	return finish(Ping{Token: r.Uint64()}, &r)
}

// Pong answers a Ping.
//
//	token uint64   of the Ping
type Pong struct{ Token uint64 }

// Type implements Message.
func (Pong) Type() Type  { return TypePong }
func (Pong) fromPortal() {}
func (Pong) toPortal()   {}
func (Pong) fromRelay()  {}
func (Pong) toRelay()    {}

// AppendTo implements Message.
func (m Pong) AppendTo(b []byte) []byte { return binary.BigEndian.AppendUint64(b, m.Token) }

// ParsePong reads a Pong.
func ParsePong(b []byte) (Pong, error) {
	r := NewReader(b)
	return finish(Pong{Token: r.Uint64()}, &r)
}

// Goodbye is the last message of a connection: its sender closes it.
//
//	reason uint16
//	text   blob     detail for people, UTF-8, at most 256 bytes
type Goodbye struct {
	Reason Reason
	Text   string
}

// Type implements Message.
func (Goodbye) Type() Type  { return TypeGoodbye }
func (Goodbye) fromPortal() {}
func (Goodbye) toPortal()   {}
func (Goodbye) fromRelay()  {}
func (Goodbye) toRelay()    {}

// AppendTo implements Message.
func (m Goodbye) AppendTo(b []byte) []byte {
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseGoodbye reads a Goodbye.
func ParseGoodbye(b []byte) (Goodbye, error) {
	r := NewReader(b)
	return finish(Goodbye{Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}

// readName reads a blob that is the name of a portal or relay (see
// identity.CheckName). No message has room for an empty or a wrong one.
func readName(r *Reader) string {
	s := r.Text(identity.MaxName)
	if identity.CheckName(s) != nil {
		r.Reject()
	}
	return s
}

// readOptionalName is readName for a field that may be empty.
func readOptionalName(r *Reader) string {
	s := r.Text(identity.MaxName)
	if s != "" && identity.CheckName(s) != nil {
		r.Reject()
	}
	return s
}
