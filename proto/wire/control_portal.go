package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
)

// Transports is a set of ways to the other portal over a relay.
type Transports uint8

// The transports. A bit that the receiver does not know is ignored.
const (
	TransportSplice Transports = 1 << 0 // TCP leg, joined in the relay's user space
	TransportPacket Transports = 1 << 1 // TCP leg whose packets the relay forwards: packet mode
	TransportUDP    Transports = 1 << 2 // UDP leg, bound by STUN
	TransportTLS    Transports = 1 << 3 // TCP leg inside TLS on the relay's shared port
)

// MaxAddresses bounds the addresses of a relay.
const MaxAddresses = 16

// OpenSession asks the server for a session with another portal; portal to
// server. Answered by Session or Refused with the same request number.
//
//	request    uint32    chosen by the portal, not 0
//	peer       blob      name of the other portal
//	grant      [16]byte  a grant that joins the two, in either direction
//	transports uint8
//	lost       blob      name of a relay at which the two have just lost each other,
//	                     which is to be passed over if there is another; or empty
type OpenSession struct {
	Request    uint32
	Peer       string
	Grant      GrantID
	Transports Transports
	Lost       string
}

// Type implements Message.
func (OpenSession) Type() Type  { return TypeOpenSession }
func (OpenSession) fromPortal() {}

// AppendTo implements Message.
func (m OpenSession) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	b = AppendBlob(b, []byte(m.Peer))
	b = append(b, m.Grant[:]...)
	b = append(b, byte(m.Transports))
	return AppendBlob(b, []byte(m.Lost))
}

// ParseOpenSession reads an OpenSession.
func ParseOpenSession(b []byte) (OpenSession, error) {
	r := NewReader(b)
	m := OpenSession{Request: r.Uint32(), Peer: readName(&r)}
	r.Copy(m.Grant[:])
	m.Transports = Transports(r.Uint8())
	m.Lost = readOptionalName(&r)
	if m.Request == 0 {
		r.Reject()
	}
	return finish(m, &r)
}

// SessionDone tells the server that the portal has closed its tunnel of a
// session, so that the relay need not hold it; portal to server.
//
//	session [16]byte
//	reason  uint16
type SessionDone struct {
	Session SessionID
	Reason  Reason
}

// Type implements Message.
func (SessionDone) Type() Type  { return TypeSessionDone }
func (SessionDone) fromPortal() {}

// AppendTo implements Message.
func (m SessionDone) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, m.Session[:]...), uint16(m.Reason))
}

// ParseSessionDone reads a SessionDone.
func ParseSessionDone(b []byte) (SessionDone, error) {
	r := NewReader(b)
	var m SessionDone
	r.Copy(m.Session[:])
	m.Reason = Reason(r.Uint16())
	return finish(m, &r)
}

// RelayAccess says where a portal finds a relay for one session.
//
//	name        blob     of the relay, as in its certificate
//	addresses   count    IP addresses, 1 to 16
//	tcp         uint16   the session's own TCP port, 0: none
//	udp         uint16   the session's own UDP port, 0: none
//	shared TCP  uint16   the relay's shared TCP port, 0: none
//	shared UDP  uint16   the relay's shared UDP port, 0: none
//	packet      uint16   the first of the leg's ports for packet mode (see package leg), 0: none
type RelayAccess struct {
	Name      string
	Addresses []netip.Addr
	TCP       uint16
	UDP       uint16
	SharedTCP uint16
	SharedUDP uint16
	Packet    uint16
}

func (a RelayAccess) appendTo(b []byte) []byte {
	b = AppendBlob(b, []byte(a.Name))
	b = appendAddrs(b, a.Addresses)
	for _, p := range []uint16{a.TCP, a.UDP, a.SharedTCP, a.SharedUDP, a.Packet} {
		b = binary.BigEndian.AppendUint16(b, p)
	}
	return b
}

func readRelayAccess(r *Reader) RelayAccess {
	a := RelayAccess{Name: readName(r), Addresses: readAddrs(r)}
	for _, p := range []*uint16{&a.TCP, &a.UDP, &a.SharedTCP, &a.SharedUDP, &a.Packet} {
		*p = r.Uint16()
	}
	if len(a.Addresses) == 0 {
		r.Reject()
	}
	return a
}

// Session tells a portal about a session it has part in; server to portal, to
// both portals at the same time. Leg 0 is its opener's: the TLS client.
//
//	request    uint32     of the OpenSession; 0: the other portal asked
//	session    [16]byte
//	leg        uint8      0 or 1: the receiver's
//	secret     [32]byte   of that leg
//	peer       blob       name of the other portal
//	relay      RelayAccess
//	lifetime   uint32     not 0: seconds after which the relay drops the session unless traffic renews it
//	transports uint8      what both sides can use
//	replaces   [16]byte   session of the same two portals from which their tunnel is
//	                      to move to this one, or zero
type Session struct {
	Request    uint32
	ID         SessionID
	Leg        uint8
	Secret     Secret
	Peer       string
	Relay      RelayAccess
	Lifetime   uint32
	Transports Transports
	Replaces   SessionID
}

// Type implements Message.
func (Session) Type() Type { return TypeSession }
func (Session) toPortal()  {}

// AppendTo implements Message.
func (m Session) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	b = append(b, m.ID[:]...)
	b = append(b, m.Leg)
	b = append(b, m.Secret[:]...)
	b = AppendBlob(b, []byte(m.Peer))
	b = m.Relay.appendTo(b)
	b = binary.BigEndian.AppendUint32(b, m.Lifetime)
	b = append(b, byte(m.Transports))
	return append(b, m.Replaces[:]...)
}

// ParseSession reads a Session.
func ParseSession(b []byte) (Session, error) {
	r := NewReader(b)
	m := Session{Request: r.Uint32()}
	r.Copy(m.ID[:])
	m.Leg = r.Uint8()
	r.Copy(m.Secret[:])
	m.Peer = readName(&r)
	m.Relay = readRelayAccess(&r)
	m.Lifetime = r.Uint32()
	m.Transports = Transports(r.Uint8())
	r.Copy(m.Replaces[:])
	if m.ID.IsZero() || m.Leg > 1 || m.Lifetime == 0 || m.ID == m.Replaces {
		r.Reject()
	}
	return finish(m, &r)
}

// Refused answers an OpenSession; server to portal.
//
//	request uint32
//	reason  uint16
//	text    blob     detail for people, UTF-8, at most 256 bytes
type Refused struct {
	Request uint32
	Reason  Reason
	Text    string
}

// Type implements Message.
func (Refused) Type() Type { return TypeRefused }
func (Refused) toPortal()  {}

// AppendTo implements Message.
func (m Refused) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.Request)
	return AppendText(binary.BigEndian.AppendUint16(b, uint16(m.Reason)), m.Text, MaxText)
}

// ParseRefused reads a Refused.
func ParseRefused(b []byte) (Refused, error) {
	r := NewReader(b)
	return finish(Refused{Request: r.Uint32(), Reason: Reason(r.Uint16()), Text: r.Text(MaxText)}, &r)
}

// SessionEnded tells a portal that a session is over; server to portal. Its
// carriers must go. With a reason that is Passing the tunnel goes on over another;
// with any other it ends.
//
//	session [16]byte
//	reason  uint16
type SessionEnded struct {
	Session SessionID
	Reason  Reason
}

// Type implements Message.
func (SessionEnded) Type() Type { return TypeSessionEnded }
func (SessionEnded) toPortal()  {}

// AppendTo implements Message.
func (m SessionEnded) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, m.Session[:]...), uint16(m.Reason))
}

// ParseSessionEnded reads a SessionEnded.
func ParseSessionEnded(b []byte) (SessionEnded, error) {
	r := NewReader(b)
	var m SessionEnded
	r.Copy(m.Session[:])
	m.Reason = Reason(r.Uint16())
	return finish(m, &r)
}

// PutGrant gives a portal a grant that concerns it, new or stamped anew;
// server to portal.
//
//	grant rest   see package grant; at most 2,048 bytes
type PutGrant struct{ Grant []byte }

// Type implements Message.
func (PutGrant) Type() Type { return TypePutGrant }
func (PutGrant) toPortal()  {}

// AppendTo implements Message.
func (m PutGrant) AppendTo(b []byte) []byte { return append(b, m.Grant...) }

// ParsePutGrant reads a PutGrant.
func ParsePutGrant(b []byte) (PutGrant, error) {
	if len(b) == 0 || len(b) > MaxGrant {
		return PutGrant{}, ErrMalformed
	}
	return PutGrant{Grant: append([]byte(nil), b...)}, nil
}

// RemoveGrant takes a grant back: its listener closes and what runs under it
// is cut; server to portal.
//
//	grant  [16]byte
//	reason uint16
type RemoveGrant struct {
	Grant  GrantID
	Reason Reason
}

// Type implements Message.
func (RemoveGrant) Type() Type { return TypeRemoveGrant }
func (RemoveGrant) toPortal()  {}

// AppendTo implements Message.
func (m RemoveGrant) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, m.Grant[:]...), uint16(m.Reason))
}

// ParseRemoveGrant reads a RemoveGrant.
func ParseRemoveGrant(b []byte) (RemoveGrant, error) {
	r := NewReader(b)
	var m RemoveGrant
	r.Copy(m.Grant[:])
	m.Reason = Reason(r.Uint16())
	return finish(m, &r)
}

// completeContext begins what the policy key signs of a version.
const completeContext = "netport-policy-version/1\x00"

// GrantsComplete says that the portal now has every grant of a policy version
// that concerns it; server to portal, after the first PutGrants of a
// connection and after each change. Grants that a new connection did not put
// before it are gone. An exit refuses a grant it does not hold if the grant's
// version is not above this one.
//
// The policy key signs that there is such a version, once for all portals: a
// portal takes none that is not signed, so that nobody else makes it refuse what is
// to come. What is gone needs no signature.
//
//	version   uint64    0: no policy was applied yet, which nobody signs
//	signature [64]byte  Ed25519 by the policy key, of "netport-policy-version/1", a zero byte, and version
type GrantsComplete struct {
	Version   uint64
	Signature [ed25519.SignatureSize]byte
}

// Sign returns m with the signature of the policy key.
func (m GrantsComplete) Sign(policy ed25519.PrivateKey) GrantsComplete {
	copy(m.Signature[:], ed25519.Sign(policy, m.signed()))
	return m
}

// SignedBy reports whether the policy key has signed m.
func (m GrantsComplete) SignedBy(policy ed25519.PublicKey) bool {
	return len(policy) == ed25519.PublicKeySize && ed25519.Verify(policy, m.signed(), m.Signature[:])
}

func (m GrantsComplete) signed() []byte {
	return binary.BigEndian.AppendUint64([]byte(completeContext), m.Version)
}

// Type implements Message.
func (GrantsComplete) Type() Type { return TypeGrantsComplete }
func (GrantsComplete) toPortal()  {}

// AppendTo implements Message.
func (m GrantsComplete) AppendTo(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, m.Version), m.Signature[:]...)
}

// ParseGrantsComplete reads a GrantsComplete. It checks its form, not its signature.
func ParseGrantsComplete(b []byte) (GrantsComplete, error) {
	r := NewReader(b)
	m := GrantsComplete{Version: r.Uint64()}
	r.Copy(m.Signature[:])
	return finish(m, &r)
}

// PeerState tells a portal whether another portal, with which it shares a
// grant, is connected to the server; server to portal.
//
//	name   blob
//	online bool
type PeerState struct {
	Name   string
	Online bool
}

// Type implements Message.
func (PeerState) Type() Type { return TypePeerState }
func (PeerState) toPortal()  {}

// AppendTo implements Message.
func (m PeerState) AppendTo(b []byte) []byte {
	return AppendBool(AppendBlob(b, []byte(m.Name)), m.Online)
}

// ParsePeerState reads a PeerState.
func ParsePeerState(b []byte) (PeerState, error) {
	r := NewReader(b)
	return finish(PeerState{Name: readName(&r), Online: r.Bool()}, &r)
}

// RelayState tells a portal whether the server has a relay that could hold a
// session; server to portal. Until it is said on a connection there is none.
//
//	ready bool
type RelayState struct{ Ready bool }

// Type implements Message.
func (RelayState) Type() Type { return TypeRelayState }
func (RelayState) toPortal()  {}

// AppendTo implements Message.
func (m RelayState) AppendTo(b []byte) []byte { return AppendBool(b, m.Ready) }

// ParseRelayState reads a RelayState.
func ParseRelayState(b []byte) (RelayState, error) {
	r := NewReader(b)
	return finish(RelayState{Ready: r.Bool()}, &r)
}

func appendAddrs(b []byte, addrs []netip.Addr) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(addrs)))
	for _, a := range addrs {
		b = AppendAddr(b, a)
	}
	return b
}

func readAddrs(r *Reader) []netip.Addr {
	var addrs []netip.Addr
	for range r.Count(MaxAddresses, 5) {
		a := r.Addr()
		if !a.IsValid() {
			r.Reject()
		}
		addrs = append(addrs, a)
	}
	return addrs
}
