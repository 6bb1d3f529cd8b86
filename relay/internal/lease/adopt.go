package lease

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Adopted is a session that was taken up.
type Adopted struct {
	Session
	Bound   []Bound // its UDP legs, in the order in which they were first bound
	Settled Traffic // as it was told with Settle
}

// Adopt takes up the sessions that an earlier process left, from all records that
// the kernel kept. It is called once, before anything else. The lifetimes begin
// anew. Limits on the number of sessions do not hold for them. It returns what
// was taken up; the error says what was not, session by session: damaged, of
// another version, or of other ports than the relay has now. Those records are
// deleted, and what the plane still forwards for them is to be removed.
func (t *Table) Adopt(now time.Time, records iter.Seq2[RecordKey, []byte]) ([]Adopted, error) {
	var errs []error
	var foreign []RecordKey
	left := make(map[wire.SessionID]*found)
	for key, record := range records {
		id, part, ok := parseKey(key)
		if !ok {
			foreign = append(foreign, key)
			continue
		}
		f := left[id]
		if f == nil {
			f = &found{err: errors.New("its first record is missing")}
			left[id] = f
		}
		f.read(id, part, record)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range foreign {
		errs = append(errs, fmt.Errorf("adopt a session: a record with the key %x is of no session", key))
		t.limits.Packet.Kernel.DeleteRecord(key)
	}
	var adopted []Adopted
	for id, f := range left {
		s, err := f.session()
		if err == nil {
			err = t.adoptLocked(now, s)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("adopt session %v: %w", id, err))
			for part := range 1 + bindParts {
				t.limits.Packet.Kernel.DeleteRecord(keyOf(id, part))
			}
			continue
		}
		a := Adopted{Session: s.Session, Settled: s.settled}
		for _, id := range s.order {
			a.Bound = append(a.Bound, Bound{id, s.binds[id].at})
		}
		adopted = append(adopted, a)
	}
	return adopted, errors.Join(errs...)
}

// found is what was found of one session.
type found struct {
	s     *session
	err   error // why s is nil
	binds [bindParts][]byte
}

// read takes one record.
func (f *found) read(id wire.SessionID, part int, b []byte) {
	if part > 0 {
		f.binds[part-1] = slices.Clone(b)
		return
	}
	if f.s, f.err = parseRecord(id, b); f.err != nil {
		f.err = fmt.Errorf("its first record: %w", f.err)
	}
}

// session returns the session that the records are of.
func (f *found) session() (*session, error) {
	if f.err != nil {
		return nil, f.err
	}
	for i, b := range f.binds {
		if b == nil {
			continue
		}
		if len(f.s.order) != i*bindsPerRecord {
			return nil, fmt.Errorf("binds are missing before its record %d", i+1)
		}
		if err := f.s.parseBinds(b); err != nil {
			return nil, fmt.Errorf("its record %d: %w", i+1, err)
		}
	}
	return f.s, nil
}

// adoptLocked makes a session known again whose records were read.
func (t *Table) adoptLocked(now time.Time, s *session) error {
	if p := s.Port; p != 0 && !t.ports.claim(p) {
		return fmt.Errorf("its port %d is in use or none of the relay's session ports", p)
	}
	for i, block := range s.Packet {
		if block != 0 && !t.blocks.valid(block) {
			t.ports.give(s.Port)
			return fmt.Errorf("leg %d: port %d begins none of the relay's blocks of packet ports", i, block)
		}
	}
	t.sessions[s.ID] = s
	if s.Ticket() {
		t.tickets.sessions++ // who had it made is not kept
	} else {
		t.perPortal[s.Portals[0]]++
	}
	s.lastLocked(now, min(s.Lifetime, ProveTime))
	if s.proven {
		s.lastLocked(now, s.Lifetime)
	}
	changed := false // of what the rules allow
	for i := range s.sources {
		list := s.sources[i]
		s.sources[i] = nil
		for _, addr := range list {
			changed = !t.admitLocked(s, uint8(i), addr) || changed
		}
	}
	for id, b := range s.binds {
		if b.shared {
			t.sources[boundAt{b.Source, 0}] = id
		}
	}
	if changed {
		t.keepLocked(s)
	}
	return nil
}
