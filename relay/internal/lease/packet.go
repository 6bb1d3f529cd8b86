package lease

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/source"
)

// MaxSources is how many addresses a leg may come from in packet mode.
const MaxSources = 4

// Packet is what packet mode takes. Its ports have no socket; each leg has a
// block of leg.PacketPorts of them.
type Packet struct {
	First, Last uint16 // whole blocks, apart from the ports that have sockets
	Sources     *source.Rules
	Kernel      Kernel
}

// Kernel is the kernel plane as far as the rules need it. It is called under the
// table's lock, in the order in which things happen, and must not call back. What
// it cannot do it reports; a table then does without.
type Kernel interface {
	// Admit lets what comes from an address to the block of packet ports that
	// begins with first reach the daemon. Again is no error.
	Admit(addr netip.Addr, first uint16) error
	// Dismiss is the end of that.
	Dismiss(addr netip.Addr, first uint16) error
	// PutRecord keeps a record beyond the process, in the place of an older one of
	// that key. When it returns the record is kept.
	PutRecord(key RecordKey, record []byte) error
	// DeleteRecord forgets a record, if there is one.
	DeleteRecord(key RecordKey) error
}

// blocks knows which leg has which block of packet ports for which source. Many
// legs may share a block, as long as their sources differ.
type blocks struct {
	first, last uint16
	next        uint16 // where the search for a block begins: late packets find nobody
	held        map[admission]holder
}

// admission is a source address at a block of packet ports.
type admission struct {
	addr  netip.Addr
	block uint16 // its first port
}

// holder is the one leg that an admission belongs to.
type holder struct {
	s   *session
	leg uint8
}

func newBlocks(first, last uint16) blocks {
	return blocks{first: first, last: last, next: first, held: make(map[admission]holder)}
}

// free returns a block that no leg has for addr, or 0.
func (b *blocks) free(addr netip.Addr) uint16 {
	for range (int(b.last) - int(b.first) + 1) / leg.PacketPorts {
		block := b.next
		if b.next += leg.PacketPorts; b.next > b.last || b.next < b.first {
			b.next = b.first
		}
		if _, taken := b.held[admission{addr, block}]; !taken {
			return block
		}
	}
	return 0
}

// valid reports whether block is the first port of a block.
func (b *blocks) valid(block uint16) bool {
	return block >= b.first && block <= b.last && (block-b.first)%leg.PacketPorts == 0 && b.first != 0
}

// givePacketLocked gives a new session packet ports, if its portals can use
// them and the server saw both come from addresses of one IP version that may be
// admitted. Otherwise the session is one without packet mode.
func (t *Table) givePacketLocked(s *session, legs [2]wire.Leg) {
	if s.Transports&wire.TransportPacket == 0 {
		return
	}
	a, b := legs[0].Source.Unmap(), legs[1].Source.Unmap()
	if t.limits.Packet != nil && a.IsValid() && b.IsValid() && a.Is4() == b.Is4() {
		for i, addr := range []netip.Addr{a, b} {
			if s.Packet[i] = t.blocks.free(addr); s.Packet[i] == 0 || !t.admitLocked(s, uint8(i), addr) {
				break
			}
		}
		if len(s.sources[1]) > 0 {
			return
		}
		t.takePacketLocked(s)
	}
	s.Packet = [2]uint16{}
	s.Transports &^= wire.TransportPacket
}

// takePacketLocked takes the packet ports of a session back.
func (t *Table) takePacketLocked(s *session) {
	for i, list := range s.sources {
		for _, addr := range list {
			delete(t.blocks.held, admission{addr, s.Packet[i]})
			t.limits.Packet.Kernel.Dismiss(addr, s.Packet[i]) // an error leaves an event that nobody waits for
		}
		s.sources[i] = nil
	}
}

// admitLocked lets a leg come in from addr in packet mode, if the leg has packet
// ports and the address is one that may and is the leg's alone there. It reports
// whether that is new.
func (t *Table) admitLocked(s *session, n uint8, addr netip.Addr) bool {
	addr = addr.Unmap()
	at := admission{addr, s.Packet[n]}
	if at.block == 0 || len(s.sources[n]) >= MaxSources || slices.Contains(s.sources[n], addr) {
		return false
	}
	p := t.limits.Packet
	if _, taken := t.blocks.held[at]; taken || !p.Sources.Admits(addr) || p.Kernel.Admit(addr, at.block) != nil {
		return false
	}
	t.blocks.held[at] = holder{s, n}
	s.sources[n] = append(s.sources[n], addr)
	return true
}

// Expected is whom a packet port belongs to for one source.
type Expected struct {
	Session
	Leg uint8
}

// Expect says which leg a TCP segment is of that came from source to a packet
// port: the one that is admitted there. It proves nothing but that.
func (t *Table) Expect(now time.Time, source netip.Addr, port uint16) (Expected, drop.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.limits.Packet
	if p == nil || port < p.First || port > p.Last {
		return Expected{}, drop.UnknownSource
	}
	block := port - (port-p.First)%leg.PacketPorts
	h, ok := t.blocks.held[admission{source.Unmap(), block}]
	switch {
	case !ok:
		return Expected{}, drop.UnknownSource
	case h.s.over(now):
		return Expected{}, drop.Expired
	case !p.Sources.Admits(source): // another relay may have come up there since
		return Expected{}, drop.ForbiddenSource
	}
	return Expected{h.s.Session, h.leg}, drop.None
}

// Installed tells that a pair in packet mode forwards now: both portals of the
// session were there, so its lifetime begins anew. It reports whether the
// session still exists; if not, the pair must go.
func (t *Table) Installed(now time.Time, id wire.SessionID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.sessions[id]
	if !ok || s.over(now) {
		return false
	}
	kept := s.proven
	s.provenLocked(now)
	if !kept {
		t.keepLocked(s)
	}
	return true
}

// Settle tells what a session has carried in all, but for what the kernel plane
// still counts for it. It is kept, so that the sum is right after a restart,
// too.
func (t *Table) Settle(id wire.SessionID, carried Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sessions[id]; ok && s.settled != carried {
		s.settled = carried
		t.keepLocked(s)
	}
}
