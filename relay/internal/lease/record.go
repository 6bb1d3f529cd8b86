package lease

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"
)

// A session that is to outlive the process has one record, and more for its
// bound legs:
//
//	key      session [16]byte, part uint8, zeros
//	part 0   version    uint8      2
//	         portals    2 × blob   names, the opener's first; both empty: a ticket's
//	         secrets    2 × [32]byte
//	         transports uint8
//	         lifetime   uint32     seconds, not 0
//	         created    uint64     Unix seconds
//	         proven     bool
//	         port       uint16     0: the shared ports only
//	         packet     2 × uint16 both 0: no packet mode
//	         next       uint32     above all numbers of TCP connections in splice mode
//	         meetings   2 × uint64 counters of the last Meeting prefaces, by leg
//	         settled    2 × uint64 bytes that no plane counts any more, by leg
//	         sources    2 × count  of one byte, and addresses; at most 4 for a leg
//	part 1.. version    uint8      2
//	         binds      count      of one byte, 1 to 10
//	           leg        uint8
//	           connection uint16
//	           counter    uint64   not 0
//	           source     address and port
//	           local      address  of the relay, if it is known
//	           port       uint16   of the relay
//	           shared     bool     it is the shared one
//
// Replays: what was sent before a restart must open nothing after it. The
// counter of each bind is kept before the bind is answered, and that of a Meeting
// preface before its leg is taken. The nonces of other prefaces are not kept, but
// the highest connection number is, before its leg is taken: all numbers up to it
// are used up for the next process. The connections they had died with this one,
// and portals go on with a higher number.
//
// Idle time is not kept: the lifetime of an adopted session begins anew.
const (
	recordVersion = 2
	// MaxRecord is the length of the longest record in bytes.
	MaxRecord = 510

	// bindsPerRecord is how many binds a record has: of at most 50 bytes each.
	bindsPerRecord = 10
	bindParts      = (2*MaxBound + bindsPerRecord - 1) / bindsPerRecord
)

// RecordKey names a record.
type RecordKey = [24]byte

func keyOf(id wire.SessionID, part int) (key RecordKey) {
	copy(key[:], id[:])
	key[len(id)] = byte(part)
	return key
}

// parseKey returns the session and the part that a key names.
func parseKey(k RecordKey) (id wire.SessionID, part int, ok bool) {
	copy(id[:], k[:])
	part = int(k[len(id)])
	return id, part, !id.IsZero() && part <= bindParts && k == keyOf(id, part)
}

// record returns part 0.
func (s *session) record() []byte {
	b := make([]byte, 0, MaxRecord)
	b = append(b, recordVersion)
	for _, name := range s.Portals {
		b = wire.AppendBlob(b, []byte(name))
	}
	for _, secret := range s.secrets {
		b = append(b, secret[:]...)
	}
	b = append(b, byte(s.Transports))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Lifetime/time.Second))
	b = binary.BigEndian.AppendUint64(b, uint64(s.created.Unix()))
	b = wire.AppendBool(b, s.proven)
	for _, port := range []uint16{s.Port, s.Packet[0], s.Packet[1]} {
		b = binary.BigEndian.AppendUint16(b, port)
	}
	b = binary.BigEndian.AppendUint32(b, s.next)
	for _, counter := range s.meetings {
		b = binary.BigEndian.AppendUint64(b, counter)
	}
	for _, bytes := range s.settled {
		b = binary.BigEndian.AppendUint64(b, bytes)
	}
	for _, list := range s.sources {
		b = append(b, byte(len(list)))
		for _, addr := range list {
			b = wire.AppendAddr(b, addr)
		}
	}
	return b
}

// parseRecord reads part 0 of a session.
func parseRecord(id wire.SessionID, b []byte) (*session, error) {
	r := wire.NewReader(b)
	if v := r.Uint8(); v != recordVersion {
		return nil, fmt.Errorf("record of version %d, this program reads version %d", v, recordVersion)
	}
	s := &session{Session: Session{ID: id}}
	s.Portals = [2]string{r.Text(identity.MaxName), r.Text(identity.MaxName)}
	if ends, ok := ticket.Ends(id); ok && s.Portals == [2]string{} {
		s.Ends = ends
	} else if identity.CheckName(s.Portals[0]) != nil || identity.CheckName(s.Portals[1]) != nil {
		r.Reject()
	}
	for i := range s.secrets {
		r.Copy(s.secrets[i][:])
	}
	s.Transports = wire.Transports(r.Uint8())
	s.Lifetime = time.Duration(r.Uint32()) * time.Second
	created := r.Uint64()
	s.created = time.Unix(int64(created), 0)
	s.proven = r.Bool()
	s.Port, s.Packet[0], s.Packet[1] = r.Uint16(), r.Uint16(), r.Uint16()
	s.next = r.Uint32()
	s.usedUp = s.next
	s.meetings = [2]uint64{r.Uint64(), r.Uint64()}
	s.settled = Traffic{r.Uint64(), r.Uint64()}
	for i := range s.sources {
		n := int(r.Uint8())
		if n > MaxSources {
			r.Reject()
			break
		}
		for range n {
			addr := r.Addr()
			if !addr.IsValid() {
				r.Reject()
			}
			s.sources[i] = append(s.sources[i], addr)
		}
		if n > 0 && s.Packet[i] == 0 {
			r.Reject()
		}
	}
	if s.Lifetime == 0 || created > maxTime || s.next > 1<<16 || (s.Packet[0] == 0) != (s.Packet[1] == 0) {
		r.Reject()
	}
	if err := r.Done(); err != nil {
		return nil, err
	}
	return s, nil
}

// maxTime is the end of the year 9999.
const maxTime = 253402300799

// partOf returns the record that a bind is in, by its place in the order.
func partOf(i int) int { return 1 + i/bindsPerRecord }

// bindRecord returns one of the parts from 1 on.
func (s *session) bindRecord(part int) []byte {
	first := (part - 1) * bindsPerRecord
	list := s.order[first:min(first+bindsPerRecord, len(s.order))]
	b := make([]byte, 0, MaxRecord)
	b = append(b, recordVersion, byte(len(list)))
	for _, id := range list {
		at := s.binds[id]
		b = append(b, id.Leg)
		b = binary.BigEndian.AppendUint16(b, id.Connection)
		b = binary.BigEndian.AppendUint64(b, at.Counter)
		b = wire.AppendAddrPort(b, at.Source)
		b = wire.AppendAddr(b, at.at.Local)
		b = binary.BigEndian.AppendUint16(b, at.at.Port)
		b = wire.AppendBool(b, at.shared)
	}
	return b
}

// parseBinds reads one of the parts from 1 on into s.
func (s *session) parseBinds(b []byte) error {
	r := wire.NewReader(b)
	if v := r.Uint8(); v != recordVersion {
		return fmt.Errorf("record of version %d, this program reads version %d", v, recordVersion)
	}
	n := int(r.Uint8())
	if n == 0 || n > bindsPerRecord {
		r.Reject()
		n = 0
	}
	for range n {
		id := leg.ID{Session: s.ID, Leg: r.Uint8(), Connection: r.Uint16()}
		at := bound{Binding: leg.Binding{Counter: r.Uint64(), Source: r.AddrPort()}}
		at.at = bpf.Leg{Remote: at.Source, Local: r.Addr(), Port: r.Uint16()}
		at.shared = r.Bool()
		if _, twice := s.binds[id]; id.Leg > 1 || at.Counter == 0 || twice || at.at.Port == 0 || at.shared == (at.at.Port == s.Port) {
			r.Reject()
			break
		}
		s.bind(id, at)
	}
	return r.Done()
}

// keepLocked has the kernel keep what the session is now.
func (t *Table) keepLocked(s *session) { t.putLocked(s, 0, s.record) }

// keepBindLocked has the kernel keep a bind.
func (t *Table) keepBindLocked(s *session, id leg.ID) {
	for i, other := range s.order {
		if other == id {
			part := partOf(i)
			t.putLocked(s, part, func() []byte { return s.bindRecord(part) })
		}
	}
}

// putLocked has the kernel keep a part. A session with a part that is not kept as
// it is must not be adopted, since what is known of replays would be too old.
func (t *Table) putLocked(s *session, part int, record func() []byte) {
	if t.limits.Packet == nil || s.unkept {
		return
	}
	if t.limits.Packet.Kernel.PutRecord(keyOf(s.ID, part), record()) != nil {
		t.forgetLocked(s)
		s.unkept = true
	}
}

// forgetLocked deletes the records of a session.
func (t *Table) forgetLocked(s *session) {
	if t.limits.Packet == nil || s.unkept {
		return
	}
	parts := 1
	if len(s.order) > 0 {
		parts += partOf(len(s.order) - 1)
	}
	for part := range parts {
		// A record that stays would be adopted, and the session ended by the server
		// or by its lifetime.
		t.limits.Packet.Kernel.DeleteRecord(keyOf(s.ID, part))
	}
}
