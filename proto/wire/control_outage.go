package wire

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// The messages of this file prepare portals and relays for what may come: a
// relay that goes, a server that is away.

// Servers tells a portal where the servers of its domain are; server to portal,
// after Welcome and after each change. The portal keeps the list beside its own
// configuration's, for the next time it has to look for a server.
//
//	addresses count   1 to 16 texts, each "host" or "host:port" of at most 260 bytes
type Servers struct{ Addresses []string }

const (
	// MaxServers is the most servers that a Servers names.
	MaxServers = 16
	// maxServer is the length of a DNS name, a colon and a port, or of an IPv6
	// address in brackets.
	maxServer = 260
)

// Type implements Message.
func (Servers) Type() Type { return TypeServers }
func (Servers) toPortal()  {}

// AppendTo implements Message.
func (m Servers) AppendTo(b []byte) []byte { return AppendServers(b, m.Addresses) }

// ParseServers reads a Servers.
func ParseServers(b []byte) (Servers, error) {
	r := NewReader(b)
	return finish(Servers{ReadServers(&r)}, &r)
}

// AppendServers appends a list of servers as Servers has it.
func AppendServers(b []byte, list []string) []byte {
	list = list[:min(len(list), MaxServers)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, a := range list {
		b = AppendText(b, a, maxServer)
	}
	return b
}

// ReadServers reads what AppendServers appends: 1 to MaxServers texts.
func ReadServers(r *Reader) []string {
	var list []string
	for range r.Count(MaxServers, 3) {
		a := r.Text(maxServer)
		if a == "" {
			r.Reject()
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		r.Reject()
	}
	return list
}

// Ticket is a standing session of two portals at a relay's shared ports, for the
// time when no server can be asked; server to portal, with the grants and
// again before it ends. A newer one for the same peer and relay stands in the
// place of the older. The session's id says when it ends (package leg); leg 0
// is that of the portal with the smaller name. A ticket permits nothing: the
// grants do.
//
//	session    [16]byte
//	leg        uint8     0 or 1: the receiver's
//	secret     [32]byte  of that leg
//	peer       blob      name of the other portal
//	relay      RelayAccess, with shared ports only
//	transports uint8     what the relay takes
type Ticket struct {
	Session    SessionID
	Leg        uint8
	Secret     Secret
	Peer       string
	Relay      RelayAccess
	Transports Transports
}

// Type implements Message.
func (Ticket) Type() Type { return TypeTicket }
func (Ticket) toPortal()  {}

// AppendTo implements Message.
func (m Ticket) AppendTo(b []byte) []byte {
	b = append(append(b, m.Session[:]...), m.Leg)
	b = AppendBlob(append(b, m.Secret[:]...), []byte(m.Peer))
	return append(m.Relay.appendTo(b), byte(m.Transports))
}

// ParseTicket reads a Ticket.
func ParseTicket(b []byte) (Ticket, error) {
	r := NewReader(b)
	var m Ticket
	r.Copy(m.Session[:])
	m.Leg = r.Uint8()
	r.Copy(m.Secret[:])
	m.Peer, m.Relay, m.Transports = readName(&r), readRelayAccess(&r), Transports(r.Uint8())
	if m.Session.IsZero() || m.Leg > 1 || m.Relay.TCP != 0 || m.Relay.UDP != 0 || m.Relay.Packet != 0 ||
		m.Relay.SharedTCP == 0 && m.Relay.SharedUDP == 0 {
		r.Reject()
	}
	return finish(m, &r)
}

// RelayPlace is where a relay can be measured.
//
//	name      blob
//	addresses count    IP addresses, 1 to 16
//	port      uint16   a TCP port of the relay that answers; not 0
type RelayPlace struct {
	Name      string
	Addresses []netip.Addr
	Port      uint16
}

// MaxPlaces is the most relays that one Relays or RelayTimes names.
const MaxPlaces = 50

// Relays tells a portal which relays there are, to measure its round trips to
// them; server to portal, after Welcome and after each change. It stands in the
// place of the one before. A server that knows more than MaxPlaces relays names some.
//
//	relays count   at most 50 RelayPlaces
type Relays struct{ Relays []RelayPlace }

// Type implements Message.
func (Relays) Type() Type { return TypeRelays }
func (Relays) toPortal()  {}

// AppendTo implements Message.
func (m Relays) AppendTo(b []byte) []byte {
	list := m.Relays[:min(len(m.Relays), MaxPlaces)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, p := range list {
		b = appendAddrs(AppendBlob(b, []byte(p.Name)), p.Addresses)
		b = binary.BigEndian.AppendUint16(b, p.Port)
	}
	return b
}

// ParseRelays reads a Relays.
func ParseRelays(b []byte) (Relays, error) {
	r := NewReader(b)
	var m Relays
	for range r.Count(MaxPlaces, 2+1+2+5+2) {
		p := RelayPlace{Name: readName(&r), Addresses: readAddrs(&r), Port: r.Uint16()}
		if len(p.Addresses) == 0 || p.Port == 0 {
			r.Reject()
		}
		m.Relays = append(m.Relays, p)
	}
	return finish(m, &r)
}

// RelayTimes says how long the portal's round trips to relays are; portal to
// server, when they have changed. It stands in the place of the one before.
//
//	times count   at most 50: name blob, and time uint32 in microseconds, 0: no answer
type RelayTimes struct{ Times []RelayTime }

// RelayTime is the round trip to one relay; 0: it did not answer.
type RelayTime struct {
	Relay string
	Time  time.Duration // in whole microseconds, below 71 minutes
}

// Type implements Message.
func (RelayTimes) Type() Type  { return TypeRelayTimes }
func (RelayTimes) fromPortal() {}

// AppendTo implements Message.
func (m RelayTimes) AppendTo(b []byte) []byte {
	list := m.Times[:min(len(m.Times), MaxPlaces)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, t := range list {
		b = AppendBlob(b, []byte(t.Relay))
		b = binary.BigEndian.AppendUint32(b, uint32(min(t.Time.Microseconds(), 1<<32-1)))
	}
	return b
}

// ParseRelayTimes reads a RelayTimes.
func ParseRelayTimes(b []byte) (RelayTimes, error) {
	r := NewReader(b)
	var m RelayTimes
	for range r.Count(MaxPlaces, 2+1+4) {
		m.Times = append(m.Times, RelayTime{Relay: readName(&r), Time: time.Duration(r.Uint32()) * time.Microsecond})
	}
	return finish(m, &r)
}

// RelayDraining says that the relay is about to stop: it takes no session any
// more, and waits a while for those it holds to be moved; relay to server. For the rest of the connection it holds
// for every session.
//
//	reason uint16
type RelayDraining struct{ Reason Reason }

// Type implements Message.
func (RelayDraining) Type() Type { return TypeRelayDraining }
func (RelayDraining) fromRelay() {}

// AppendTo implements Message.
func (m RelayDraining) AppendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint16(b, uint16(m.Reason))
}

// ParseRelayDraining reads a RelayDraining.
func ParseRelayDraining(b []byte) (RelayDraining, error) {
	r := NewReader(b)
	return finish(RelayDraining{Reason: Reason(r.Uint16())}, &r)
}

// TicketKeys gives a relay the keys from which it works out the leg secrets of
// tickets (package leg); server to relay, after Welcome. The first is the one
// of new tickets.
//
//	keys count   1 to 4 keys of 32 bytes
type TicketKeys struct{ Keys []Secret }

const maxTicketKeys = 4

// Type implements Message.
func (TicketKeys) Type() Type { return TypeTicketKeys }
func (TicketKeys) toRelay()   {}

// AppendTo implements Message.
func (m TicketKeys) AppendTo(b []byte) []byte {
	list := m.Keys[:min(len(m.Keys), maxTicketKeys)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, k := range list {
		b = append(b, k[:]...)
	}
	return b
}

// ParseTicketKeys reads a TicketKeys.
func ParseTicketKeys(b []byte) (TicketKeys, error) {
	r := NewReader(b)
	var m TicketKeys
	for range r.Count(maxTicketKeys, len(Secret{})) {
		var k Secret
		r.Copy(k[:])
		m.Keys = append(m.Keys, k)
	}
	if len(m.Keys) == 0 {
		r.Reject()
	}
	return finish(m, &r)
}
