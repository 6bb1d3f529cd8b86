package leg

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/pion/stun/v3"

	"github.com/netport/netport/proto/wire"
)

const (
	// RequestLen is the length of every bind request in bytes.
	RequestLen = 192
	// MaxAnswerLen is the length of the longest answer to a bind request in
	// bytes: the challenge.
	MaxAnswerLen = 20 + (4 + 4) + (4 + nonceLen) + integrityLen

	attrCounter  stun.AttrType = 0xfe4e
	nonceLen                   = 40
	integrityLen               = 4 + sha256.Size

	// The fixed parts of a request before its padding, NONCE apart.
	requestFixed = 20 + (4 + usernameLen) + (4 + 8) + 4 + integrityLen
)

type transactionID = [stun.TransactionIDSize]byte

// IsSTUN reports whether a packet has the STUN cookie in its bytes 4 to 7, which
// makes it the relay's own business and never a session's data. It need not be
// as long as a STUN message.
func IsSTUN(packet []byte) bool {
	return len(packet) >= 8 && binary.BigEndian.Uint32(packet[4:]) == 0x2112a442
}

// Request is a bind request. Nothing in it is proven before ProvenBy says so.
type Request struct {
	ID      ID
	Counter uint64

	transaction transactionID
	nonce       []byte // nil in the first request of a bind
	raw         []byte // as received
}

// ParseRequest reads a bind request. It refuses everything but the exact form,
// so that what it accepts has one encoding. The Request is valid as long as
// packet is.
func ParseRequest(packet []byte) (Request, error) {
	if len(packet) != RequestLen || packet[0] != 0 || packet[1] != 1 {
		return Request{}, wire.ErrMalformed
	}
	m := stun.Message{Raw: packet}
	if m.Decode() != nil || m.Length != RequestLen-20 {
		return Request{}, wire.ErrMalformed
	}
	q := Request{transaction: m.TransactionID, raw: packet}
	a := m.Attributes
	if len(a) == 5 {
		if a[2].Type != stun.AttrNonce || len(a[2].Value) != nonceLen {
			return Request{}, wire.ErrMalformed
		}
		q.nonce = a[2].Value
		a = stun.Attributes{a[0], a[1], a[3], a[4]}
	}
	if len(a) != 4 ||
		a[0].Type != stun.AttrUsername ||
		a[1].Type != attrCounter || len(a[1].Value) != 8 ||
		a[2].Type != stun.AttrPadding || !zeros(a[2].Value) || len(a[2].Value)%4 != 0 ||
		a[3].Type != stun.AttrMessageIntegritySHA256 || len(a[3].Value) != sha256.Size {
		return Request{}, wire.ErrMalformed
	}
	id, ok := parseUsername(a[0].Value)
	q.ID, q.Counter = id, binary.BigEndian.Uint64(a[1].Value)
	if !ok || q.Counter == 0 {
		return Request{}, wire.ErrMalformed
	}
	return q, nil
}

// ProvenBy reports whether the sender of a parsed request held secret.
func (q Request) ProvenBy(secret wire.Secret) bool { return proven(q.raw, secret) }

// appendRequest appends a request, signed with secret.
func appendRequest(b []byte, q Request, secret wire.Secret) []byte {
	set := []stun.Setter{
		stun.BindingRequest,
		stun.NewTransactionIDSetter(q.transaction),
		stun.RawAttribute{Type: stun.AttrUsername, Value: q.ID.username()},
		stun.RawAttribute{Type: attrCounter, Value: binary.BigEndian.AppendUint64(nil, q.Counter)},
	}
	padding := RequestLen - requestFixed
	if q.nonce != nil {
		set = append(set, stun.RawAttribute{Type: stun.AttrNonce, Value: q.nonce})
		padding -= 4 + nonceLen
	}
	set = append(set, stun.RawAttribute{Type: stun.AttrPadding, Value: make([]byte, padding)}, integrity(secret))
	return append(b, stun.MustBuild(set...).Raw...)
}

func appendChallenge(b []byte, transaction transactionID, nonce []byte, secret wire.Secret) []byte {
	return append(b, stun.MustBuild(
		stun.BindingError,
		stun.NewTransactionIDSetter(transaction),
		stun.ErrorCodeAttribute{Code: stun.CodeUnauthorized},
		stun.RawAttribute{Type: stun.AttrNonce, Value: nonce},
		integrity(secret),
	).Raw...)
}

func appendSuccess(b []byte, transaction transactionID, mapped netip.AddrPort, secret wire.Secret) []byte {
	return append(b, stun.MustBuild(
		stun.BindingSuccess,
		stun.NewTransactionIDSetter(transaction),
		&stun.XORMappedAddress{IP: mapped.Addr().Unmap().AsSlice(), Port: int(mapped.Port())},
		integrity(secret),
	).Raw...)
}

// answer is what a relay answers: a challenge has a nonce, a success has
// the mapped address.
type answer struct {
	transaction transactionID
	nonce       []byte
	mapped      netip.AddrPort
}

// parseAnswer reads an answer whose integrity secret proves. All others are
// wire.ErrMalformed.
func parseAnswer(packet []byte, secret wire.Secret) (answer, error) {
	m := stun.Message{Raw: packet}
	if len(packet) > MaxAnswerLen || !stun.IsMessage(packet) || m.Decode() != nil || len(packet) != 20+int(m.Length) || !proven(packet, secret) {
		return answer{}, wire.ErrMalformed
	}
	v := answer{transaction: m.TransactionID}
	switch m.Type {
	case stun.BindingError:
		var code stun.ErrorCodeAttribute
		nonce, err := m.Get(stun.AttrNonce)
		if err != nil || len(nonce) != nonceLen || code.GetFrom(&m) != nil || code.Code != stun.CodeUnauthorized {
			return answer{}, wire.ErrMalformed
		}
		v.nonce = nonce
	case stun.BindingSuccess:
		var mapped stun.XORMappedAddress
		if mapped.GetFrom(&m) != nil {
			return answer{}, wire.ErrMalformed
		}
		addr, _ := netip.AddrFromSlice(mapped.IP)
		v.mapped = netip.AddrPortFrom(addr.Unmap(), uint16(mapped.Port))
	default:
		return answer{}, wire.ErrMalformed
	}
	return v, nil
}

// integrity adds MESSAGE-INTEGRITY-SHA256 as the last attribute (RFC 8489
// section 14.6), which the STUN library knows by number only.
type integrity wire.Secret

// AddTo implements stun.Setter.
func (key integrity) AddTo(m *stun.Message) error {
	m.Length += integrityLen // the MAC covers the header as it will be sent
	m.WriteLength()
	mac := sign(m.Raw, wire.Secret(key))
	m.Length -= integrityLen
	m.Add(stun.AttrMessageIntegritySHA256, mac)
	return nil
}

// proven checks the MESSAGE-INTEGRITY-SHA256 that ends a decoded message.
func proven(raw []byte, secret wire.Secret) bool {
	at := len(raw) - integrityLen
	return at >= 20 &&
		binary.BigEndian.Uint32(raw[at:]) == uint32(stun.AttrMessageIntegritySHA256)<<16|sha256.Size &&
		hmac.Equal(raw[at+4:], sign(raw[:at], secret))
}

func sign(b []byte, secret wire.Secret) []byte {
	h := hmac.New(sha256.New, secret[:])
	h.Write(b)
	return h.Sum(nil)
}

func zeros(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
