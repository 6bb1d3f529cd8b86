package leg

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/netport/netport/proto/wire"
)

const (
	// PrefaceLen is the length of a TCP preface in bytes.
	PrefaceLen = 64
	// Magic is what a preface begins with. No TLS record does.
	Magic = "NPLG\x01"

	prefaceMAC = 40 // where the MAC starts
)

// Nonce makes a preface unique.
type Nonce [16]byte

// Meeting is the connection number of a leg that has not agreed on a number with
// the other: see the package documentation.
const Meeting = 1<<16 - 1

// Preface is what a portal sends first on a TCP connection to a relay; the
// package documentation has its layout.
type Preface struct {
	ID    ID
	Nonce Nonce

	mac [PrefaceLen - prefaceMAC]byte // as received
}

// NewPreface returns a preface for id with a random nonce.
func NewPreface(id ID) Preface {
	p := Preface{ID: id}
	rand.Read(p.Nonce[:])
	return p
}

// AppendTo appends the preface with the MAC that secret makes.
func (p Preface) AppendTo(b []byte, secret wire.Secret) []byte {
	mac := p.sign(secret)
	return append(p.appendFields(b), mac[:]...)
}

// NewMeeting returns a preface for the Meeting connection of a leg. counter must
// be above that of every such preface of the leg before; the Unix time in
// milliseconds will do.
func NewMeeting(session wire.SessionID, leg uint8, counter uint64) Preface {
	p := NewPreface(ID{Session: session, Leg: leg, Connection: Meeting})
	binary.BigEndian.PutUint64(p.Nonce[:], counter)
	return p
}

// Counter returns the counter of a Meeting preface.
func (p Preface) Counter() uint64 { return binary.BigEndian.Uint64(p.Nonce[:]) }

func (p Preface) appendFields(b []byte) []byte {
	b = append(b, Magic...)
	b = append(b, p.ID.Session[:]...)
	b = append(b, p.ID.Leg)
	b = binary.BigEndian.AppendUint16(b, p.ID.Connection)
	return append(b, p.Nonce[:]...)
}

func (p Preface) sign(secret wire.Secret) (mac [PrefaceLen - prefaceMAC]byte) {
	h := hmac.New(sha256.New, secret[:])
	h.Write(p.appendFields(make([]byte, 0, prefaceMAC)))
	copy(mac[:], h.Sum(nil))
	return mac
}

// ParsePreface reads a preface. Nothing in it is proven before ProvenBy says
// so.
func ParsePreface(b []byte) (Preface, error) {
	r := wire.NewReader(b)
	var p Preface
	if string(r.Bytes(len(Magic))) != Magic {
		r.Reject()
	}
	r.Copy(p.ID.Session[:])
	p.ID.Leg = r.Uint8()
	if p.ID.Leg > 1 {
		r.Reject()
	}
	p.ID.Connection = r.Uint16()
	r.Copy(p.Nonce[:])
	r.Copy(p.mac[:])
	if err := r.Done(); err != nil {
		return Preface{}, err
	}
	return p, nil
}

// ProvenBy reports whether the sender of a parsed preface held secret. It
// takes the same time for every wrong MAC.
func (p Preface) ProvenBy(secret wire.Secret) bool {
	mac := p.sign(secret)
	return hmac.Equal(mac[:], p.mac[:])
}
