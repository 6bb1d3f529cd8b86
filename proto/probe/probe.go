// Package probe is the packet by which two portals find out whether they reach each
// other without a relay, and by which they hold such a way open. It travels over the
// UDP socket that QUIC uses too, to addresses that the other portal has named
// (wire.Candidates) or from which a probe of it has come.
//
//	asker                                     answerer
//	  | ask: token, counter                       |
//	  |------------------------------------------>| MAC right, counter new
//	  |            answer: same token, where the  |
//	  |            ask came from, counter         |
//	  |<------------------------------------------|
//	  | the way is open, both ways: who sent the  |
//	  | answer has read the token                 |
//
// On TCP the same packets are the first bytes of a connection: who has dialled asks, and
// who is asked answers; if both have dialled, both ask. The TLS client of the tunnel's
// first carrier then takes a connection by one byte, 1, or by 2 and the number of a carrier that it
// has announced (uint16), on which TLS follows; others it closes.
//
// Ask and answer have the same length. Both carry a MAC under a key that only the two
// portals of one tunnel know, and an id by which the receiver finds that tunnel; the id
// differs by direction, so that no packet can be sent back to its sender. Everything
// without a right MAC, and every counter that has come before, is met with silence:
// a stranger learns nothing, and a packet that was caught and is sent again from
// elsewhere does nothing.
package probe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

// Len is the length of a probe in bytes, ask or answer.
const Len = 71

const (
	kindAsk    = 3 // leg.Echo has 1 and 2
	kindAnswer = 4
	macAt      = Len - 16
)

// ID names a tunnel in the probes to one of its two portals.
type ID [8]byte

// Key is what proves the probes of a tunnel. It never prints.
type Key = wire.Secret

// Keys are a tunnel's, as both of its portals work them out.
type Keys struct {
	ToClient, ToServer ID // in probes to the TLS client of the tunnel's first carrier, and to its server
	Key                Key
}

// Own returns the id in probes to the portal that is, or is not, that client.
func (k Keys) Own(client bool) ID {
	if client {
		return k.ToClient
	}
	return k.ToServer
}

// Probe is one packet.
//
//	kind     uint8     3 asks, 4 answers; the first two bits of a packet are 0 in no
//	                   packet of QUIC
//	zeros    [7]byte   so it has no STUN cookie
//	id       [8]byte   of the tunnel, to this receiver
//	token    [8]byte   random; that of the ask in the answer
//	interval uint32    milliseconds, 1 to 3,600,000: as in leg.Echo
//	lost     uint32    milliseconds, 0 to 3,600,000: as in leg.Echo
//	counter  uint32    above 0, never used twice by its sender in a tunnel; it comes around
//	seen     [19]byte  in an answer, where the ask came from: length of the address (4 or
//	                   16), the address, zeros up to 16 bytes, port; in an ask all zeros
//	MAC      [16]byte  HMAC-SHA256 of the 55 bytes before it, cut
type Probe struct {
	Echo    leg.Echo
	Counter uint32
	Seen    netip.AddrPort
}

// AppendTo appends the probe to the portal that id is of.
func (p Probe) AppendTo(b []byte, id ID, key Key) []byte {
	at := len(b)
	kind := byte(kindAsk)
	if p.Echo.Answer {
		kind = kindAnswer
	}
	b = append(b, kind, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Echo.Token)
	b = binary.BigEndian.AppendUint32(b, milliseconds(p.Echo.Interval, time.Millisecond))
	b = binary.BigEndian.AppendUint32(b, milliseconds(p.Echo.Lost, 0))
	b = binary.BigEndian.AppendUint32(b, p.Counter)
	var seen [19]byte
	if p.Echo.Answer {
		addr := p.Seen.Addr().Unmap().AsSlice()
		seen[0] = byte(len(addr))
		copy(seen[1:], addr)
		binary.BigEndian.PutUint16(seen[17:], p.Seen.Port())
	}
	b = append(b, seen[:]...)
	return append(b, sign(b[at:], key)...)
}

func milliseconds(d, least time.Duration) uint32 {
	return uint32(min(max(d, least), leg.MaxEchoInterval).Milliseconds())
}

func sign(b []byte, key Key) []byte {
	h := hmac.New(sha256.New, key[:])
	h.Write(b)
	return h.Sum(nil)[:Len-macAt]
}

// IDOf returns the id of a packet that has the shape of a probe; false: it has not.
func IDOf(b []byte) (id ID, ok bool) {
	if len(b) != Len || b[0] != kindAsk && b[0] != kindAnswer {
		return ID{}, false
	}
	return ID(b[8:16]), true
}

// Open reads a probe that key proves. A packet that it does not is malformed as any
// other.
func Open(b []byte, key Key) (Probe, error) {
	if len(b) != Len || !hmac.Equal(sign(b[:macAt], key), b[macAt:]) {
		return Probe{}, wire.ErrMalformed
	}
	r := wire.NewReader(b[:macAt])
	var p Probe
	switch r.Uint8() {
	case kindAsk:
	case kindAnswer:
		p.Echo.Answer = true
	default:
		r.Reject()
	}
	if !zeros(r.Bytes(7)) {
		r.Reject()
	}
	r.Bytes(len(ID{}))
	p.Echo.Token = r.Uint64()
	p.Echo.Interval = time.Duration(r.Uint32()) * time.Millisecond
	p.Echo.Lost = time.Duration(r.Uint32()) * time.Millisecond
	p.Counter = r.Uint32()
	var seen [19]byte
	r.Copy(seen[:])
	if p.Echo.Interval < time.Millisecond || p.Echo.Interval > leg.MaxEchoInterval || p.Echo.Lost > leg.MaxEchoInterval || p.Counter == 0 {
		r.Reject()
	}
	if p.Echo.Answer {
		p.Seen = readSeen(&r, seen[:])
	} else if !zeros(seen[:]) {
		r.Reject()
	}
	if err := r.Done(); err != nil {
		return Probe{}, err
	}
	return p, nil
}

func readSeen(r *wire.Reader, b []byte) netip.AddrPort {
	n := int(b[0])
	if n != 4 && n != 16 || !zeros(b[1+n:17]) {
		r.Reject()
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(b[1 : 1+n])
	port := binary.BigEndian.Uint16(b[17:])
	if addr.Is4In6() || port == 0 {
		r.Reject()
	}
	return netip.AddrPortFrom(addr, port)
}

func zeros(b []byte) bool { return !slices.ContainsFunc(b, func(v byte) bool { return v != 0 }) }
