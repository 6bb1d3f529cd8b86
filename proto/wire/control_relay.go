package wire

import (
	"encoding/binary"
	"net/netip"
)

// RelayReady follows Welcome: what the relay offers; relay to server. The
// relay's addresses are not asked of it: the server knows them from when it
// issued the relay's certificate.
//
//	first      uint16   first session port
//	last       uint16   last session port
//	shared TCP uint16   0: none
//	shared UDP uint16   0: none
//	capacity   uint32   sessions it will hold at once
//	transports uint8    what it can carry
//	sessions   count    sessions it still holds, from before; at most 100 HeldSessions
type RelayReady struct {
	First, Last uint16
	SharedTCP   uint16
	SharedUDP   uint16
	Capacity    uint32
	Transports  Transports
	Sessions    []HeldSession
}

// HeldSession is a session that a relay still holds, as a server needs to know
// it that was started since.
//
//	session    [16]byte
//	portals    2 × blob  names, the opener's first; they differ
//	transports uint8     what the session may use
//	age        uint32    seconds since it was made
type HeldSession struct {
	ID         SessionID
	Portals    [2]string
	Transports Transports
	Age        uint32
}

// MaxHeld is the most sessions that one RelayReady names. A relay that holds
// more sends several.
const MaxHeld = 100

// minHeldLen is the shortest encoding of a HeldSession.
const minHeldLen = 16 + 2*(2+1) + 1 + 4

// Type implements Message.
func (RelayReady) Type() Type { return TypeRelayReady }
func (RelayReady) fromRelay() {}

// AppendTo implements Message.
func (m RelayReady) AppendTo(b []byte) []byte {
	for _, p := range []uint16{m.First, m.Last, m.SharedTCP, m.SharedUDP} {
		b = binary.BigEndian.AppendUint16(b, p)
	}
	b = binary.BigEndian.AppendUint32(b, m.Capacity)
	b = append(b, byte(m.Transports))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Sessions)))
	for _, s := range m.Sessions {
		b = append(b, s.ID[:]...)
		for _, name := range s.Portals {
			b = AppendBlob(b, []byte(name))
		}
		b = binary.BigEndian.AppendUint32(append(b, byte(s.Transports)), s.Age)
	}
	return b
}

// ParseRelayReady reads a RelayReady.
func ParseRelayReady(b []byte) (RelayReady, error) {
	r := NewReader(b)
	var m RelayReady
	for _, p := range []*uint16{&m.First, &m.Last, &m.SharedTCP, &m.SharedUDP} {
		*p = r.Uint16()
	}
	m.Capacity = r.Uint32()
	m.Transports = Transports(r.Uint8())
	for range r.Count(MaxHeld, minHeldLen) {
		var s HeldSession
		r.Copy(s.ID[:])
		s.Portals = [2]string{readName(&r), readName(&r)}
		s.Transports, s.Age = Transports(r.Uint8()), r.Uint32()
		if s.ID.IsZero() || s.Portals[0] == s.Portals[1] {
			r.Reject()
		}
		m.Sessions = append(m.Sessions, s)
	}
	if m.First == 0 || m.Last < m.First {
		r.Reject()
	}
	return finish(m, &r)
}

// RelayLoad says how busy the relay is; relay to server, when it changes, at
// most once a second.
//
//	sessions uint32   held now
//	rate     uint64   bytes a second forwarded, both directions
type RelayLoad struct {
	Sessions uint32
	Rate     uint64
}

// Type implements Message.
func (RelayLoad) Type() Type { return TypeRelayLoad }
func (RelayLoad) fromRelay() {}

// AppendTo implements Message.
func (m RelayLoad) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, m.Sessions), m.Rate)
}

// ParseRelayLoad reads a RelayLoad.
func ParseRelayLoad(b []byte) (RelayLoad, error) {
	r := NewReader(b)
	return finish(RelayLoad{Sessions: r.Uint32(), Rate: r.Uint64()}, &r)
}

// Leg is one portal's side of a session as the relay is told it.
//
//	portal blob       name, for the relay's quota and log
//	secret [32]byte
//	source address    the address the server saw the portal come from
type Leg struct {
	Portal string
	Secret Secret
	Source netip.Addr
}

// CreateSession asks the relay to hold a session; server to relay. Answered by
// SessionReady or SessionRefused with the same session id.
//
//	session    [16]byte
//	lifetime   uint32    not 0: seconds without traffic after which the session ends;
//	                     it ends after 30 seconds if no leg was proven by then, and
//	                     no connection in packet mode made
//	transports uint8     what both portals can use
//	legs       2 × Leg   the opener's first
type CreateSession struct {
	ID         SessionID
	Lifetime   uint32
	Transports Transports
	Legs       [2]Leg
}

// Type implements Message.
func (CreateSession) Type() Type { return TypeCreateSession }
func (CreateSession) toRelay()   {}

// AppendTo implements Message.
func (m CreateSession) AppendTo(b []byte) []byte {
	b = append(b, m.ID[:]...)
	b = binary.BigEndian.AppendUint32(b, m.Lifetime)
	b = append(b, byte(m.Transports))
	for _, l := range m.Legs {
		b = AppendBlob(b, []byte(l.Portal))
		b = append(b, l.Secret[:]...)
		b = AppendAddr(b, l.Source)
	}
	return b
}

// ParseCreateSession reads a CreateSession.
func ParseCreateSession(b []byte) (CreateSession, error) {
	r := NewReader(b)
	var m CreateSession
	r.Copy(m.ID[:])
	m.Lifetime = r.Uint32()
	m.Transports = Transports(r.Uint8())
	for i := range m.Legs {
		l := &m.Legs[i]
		l.Portal = readName(&r)
		r.Copy(l.Secret[:])
		l.Source = r.Addr()
	}
	if m.ID.IsZero() || m.Lifetime == 0 {
		r.Reject()
	}
	return finish(m, &r)
}

// PacketPorts is how many ports each leg has in packet mode: its first one and
// those that follow.
const PacketPorts = 8

// SessionReady says where the session waits for its legs; relay to server.
//
//	session [16]byte
//	tcp     uint16     the session's own TCP port, 0: the shared port only
//	udp     uint16     the session's own UDP port, 0: the shared port only
//	packet  2 × uint16 the first port of each leg for packet mode (see package
//	                   leg), leg 0's first; both 0: no packet mode
type SessionReady struct {
	ID     SessionID
	TCP    uint16
	UDP    uint16
	Packet [2]uint16
}

// Type implements Message.
func (SessionReady) Type() Type { return TypeSessionReady }
func (SessionReady) fromRelay() {}

// AppendTo implements Message.
func (m SessionReady) AppendTo(b []byte) []byte {
	b = append(b, m.ID[:]...)
	for _, p := range []uint16{m.TCP, m.UDP, m.Packet[0], m.Packet[1]} {
		b = binary.BigEndian.AppendUint16(b, p)
	}
	return b
}

// ParseSessionReady reads a SessionReady.
func ParseSessionReady(b []byte) (SessionReady, error) {
	r := NewReader(b)
	var m SessionReady
	r.Copy(m.ID[:])
	for _, p := range []*uint16{&m.TCP, &m.UDP, &m.Packet[0], &m.Packet[1]} {
		*p = r.Uint16()
	}
	if (m.Packet[0] == 0) != (m.Packet[1] == 0) {
		r.Reject()
	}
	return finish(m, &r)
}

// SessionRefused says that the relay will not hold the session; relay to
// server.
//
//	session [16]byte
//	reason  uint16
//	text    blob       detail for people, UTF-8, at most 256 bytes
type SessionRefused struct {
	ID     SessionID
	Reason Reason
	Text   string
}

// Type implements Message.
func (SessionRefused) Type() Type { return TypeSessionRefused }
func (SessionRefused) fromRelay() {}

// AppendTo implements Message.
func (m SessionRefused) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, m.ID[:]...), uint16(m.Reason))
	return AppendText(b, m.Text, MaxText)
}

// ParseSessionRefused reads a SessionRefused.
func ParseSessionRefused(b []byte) (SessionRefused, error) {
	r := NewReader(b)
	var m SessionRefused
	r.Copy(m.ID[:])
	m.Reason, m.Text = Reason(r.Uint16()), r.Text(MaxText)
	return finish(m, &r)
}

// SessionOver reports a session that has ended at the relay, and what it
// carried; relay to server.
//
//	session [16]byte
//	reason  uint16
//	forth   uint64     bytes from leg 0 to leg 1
//	back    uint64     bytes from leg 1 to leg 0
type SessionOver struct {
	ID     SessionID
	Reason Reason
	Forth  uint64
	Back   uint64
}

// Type implements Message.
func (SessionOver) Type() Type { return TypeSessionOver }
func (SessionOver) fromRelay() {}

// AppendTo implements Message.
func (m SessionOver) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, m.ID[:]...), uint16(m.Reason))
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, m.Forth), m.Back)
}

// ParseSessionOver reads a SessionOver.
func ParseSessionOver(b []byte) (SessionOver, error) {
	r := NewReader(b)
	var m SessionOver
	r.Copy(m.ID[:])
	m.Reason, m.Forth, m.Back = Reason(r.Uint16()), r.Uint64(), r.Uint64()
	return finish(m, &r)
}

// EndSession ends a session at once; server to relay. Answered by SessionOver.
//
//	session [16]byte
//	reason  uint16
type EndSession struct {
	ID     SessionID
	Reason Reason
}

// Type implements Message.
func (EndSession) Type() Type { return TypeEndSession }
func (EndSession) toRelay()   {}

// AppendTo implements Message.
func (m EndSession) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, m.ID[:]...), uint16(m.Reason))
}

// ParseEndSession reads an EndSession.
func ParseEndSession(b []byte) (EndSession, error) {
	r := NewReader(b)
	var m EndSession
	r.Copy(m.ID[:])
	m.Reason = Reason(r.Uint16())
	return finish(m, &r)
}

// OtherRelay is where another relay takes legs.
//
//	addresses  count    IP addresses, 1 to 16
//	first      uint16   first session port
//	last       uint16   last session port
//	shared TCP uint16   0: none
//	shared UDP uint16   0: none
type OtherRelay struct {
	Addresses   []netip.Addr
	First, Last uint16
	SharedTCP   uint16
	SharedUDP   uint16
}

// MaxOthers is the most relays that one OtherRelays names. A server that knows
// more sends several.
const MaxOthers = 50

// minOtherLen is the shortest encoding of an OtherRelay.
const minOtherLen = 2 + 5 + 4*2

// OtherRelays tells a relay where all other relays are, so that it takes no leg
// from there: two relays that are joined with each other would send what they
// carry in circles. Server to relay, after Welcome and after each change. The
// last message of a list, which may be the only one, has more unset; the list
// then stands in the place of the one before.
//
//	more   bool    the list goes on in the next message
//	relays count   at most 50 OtherRelays
type OtherRelays struct {
	More   bool
	Relays []OtherRelay
}

// Type implements Message.
func (OtherRelays) Type() Type { return TypeOtherRelays }
func (OtherRelays) toRelay()   {}

// AppendTo implements Message.
func (m OtherRelays) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(AppendBool(b, m.More), uint16(len(m.Relays)))
	for _, o := range m.Relays {
		b = appendAddrs(b, o.Addresses)
		for _, p := range []uint16{o.First, o.Last, o.SharedTCP, o.SharedUDP} {
			b = binary.BigEndian.AppendUint16(b, p)
		}
	}
	return b
}

// ParseOtherRelays reads an OtherRelays.
func ParseOtherRelays(b []byte) (OtherRelays, error) {
	r := NewReader(b)
	m := OtherRelays{More: r.Bool()}
	for range r.Count(MaxOthers, minOtherLen) {
		o := OtherRelay{Addresses: readAddrs(&r)}
		for _, p := range []*uint16{&o.First, &o.Last, &o.SharedTCP, &o.SharedUDP} {
			*p = r.Uint16()
		}
		if len(o.Addresses) == 0 || o.First == 0 || o.Last < o.First {
			r.Reject()
		}
		m.Relays = append(m.Relays, o)
	}
	return finish(m, &r)
}
