//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Entry is a pair with its terms.
type Entry struct {
	Pair
	Terms
}

// row is an entry on its way into the maps: of each direction, by the leg that
// it comes from, the flow and what stood there before.
type row struct {
	Entry
	keys  [2]relayFlowKey
	flows [2]relayFlow
	old   [2]relayFlow
	live  [2]bool // old is a flow, and not a dead one
	// carried is what live directions had counted when the slot was filled.
	carried [2]Traffic
}

// Add implements Plane. ErrFull is returned when the table holds as many pairs
// as it can; a moved leg needs a second one for as long as the old pair is there.
func (k *Kernel) Add(pair Pair, terms Terms) error {
	return k.AddBatch([]Entry{{pair, terms}})
}

// AddBatch is Add for many pairs at once, of which no two may have a leg in
// common. An error leaves the table as it was.
func (k *Kernel) AddBatch(entries []Entry) error {
	rows := make([]row, len(entries))
	hopTo := k.network.hops()
	for i, e := range entries {
		if err := k.check(e.Pair); err != nil {
			return fmt.Errorf("add a pair of %v and %v: %w", e.A.Remote, e.B.Remote, err)
		}
		rows[i] = newRow(e, hopTo)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return fmt.Errorf("add pairs: %w", errClosed)
	}
	if err := k.addLocked(rows); err != nil {
		return fmt.Errorf("add pairs: %w", err)
	}
	return nil
}

// check refuses pairs that the program cannot carry.
func (k *Kernel) check(p Pair) error {
	if p.Protocol != TCP && p.Protocol != UDP {
		return fmt.Errorf("%v is not carried", p.Protocol)
	}
	for _, l := range []Leg{p.A, p.B} {
		if a := l.Remote.Addr(); !a.IsValid() || a.Is4In6() || a.Zone() != "" || l.Remote.Port() == 0 {
			return fmt.Errorf("remote %v is no address and port", l.Remote)
		}
		if l.Port < k.options.First || l.Port > k.options.Last {
			return fmt.Errorf("port %d is no session port", l.Port)
		}
		if !l.Local.IsValid() {
			return errors.New("the relay's address is not known")
		}
	}
	if p.A.Remote == p.B.Remote && p.A.Port == p.B.Port {
		return errors.New("both legs are the same")
	}
	v4 := p.A.Remote.Addr().Is4()
	if v4 != p.B.Remote.Addr().Is4() || v4 != p.A.Local.Is4() || v4 != p.B.Local.Is4() {
		return ErrVersions
	}
	return nil
}

// newRow makes an entry ready, as far as that is possible without the table.
func newRow(e Entry, hopTo func(Leg) hop) row {
	r := row{Entry: e}
	legs := [2]Leg{e.A, e.B}
	var hops [2]hop
	for i, l := range legs {
		r.keys[i] = keyOf(e.Protocol, l)
		hops[i] = hopTo(l)
	}
	for i := range r.flows {
		peer := legs[1-i]
		r.flows[i] = relayFlow{
			Peer:      rawAddr(peer.Remote.Addr()),
			PeerPort:  toNetwork(peer.Remote.Port()),
			PeerLocal: toNetwork(peer.Port),
			Direction: uint8(i),
		}
		r.flows[i].way(hops[i], hops[1-i])
	}
	return r
}

// addLocked puts rows into the maps, all or none.
func (k *Kernel) addLocked(rows []row) (err error) {
	named := make(map[relayFlowKey]bool, 2*len(rows))
	for i := range rows {
		r := &rows[i]
		for d, l := range [2]Leg{r.A, r.B} {
			if named[r.keys[d]] {
				return fmt.Errorf("leg %v at port %d is named twice", l.Remote, l.Port)
			}
			named[r.keys[d]] = true
			number, ok := k.own.index[l.Local]
			if !ok {
				return fmt.Errorf("%v is not an address of the relay", l.Local)
			}
			r.flows[d].Own, r.flows[1-d].PeerOwn = number, number
			if r.old[d], r.live[d], err = k.flowLocked(r.keys[d]); err != nil {
				return err
			}
		}
	}
	taken := 0
	defer func() {
		if err != nil {
			k.undoLocked(rows[:taken])
		}
	}()
	for i := range rows {
		if !k.fillLocked(&rows[i]) {
			return ErrFull
		}
		taken++
	}
	keys, flows := make([]relayFlowKey, 0, 2*len(rows)), make([]relayFlow, 0, 2*len(rows))
	for i := range rows {
		for d, f := range rows[i].flows {
			// The kernel writes a new value into memory that the program has
			// looked at just before: never without need.
			if f != rows[i].old[d] {
				keys, flows = append(keys, rows[i].keys[d]), append(flows, f)
			}
		}
	}
	if len(keys) > 0 {
		if _, err := k.maps.Flows.BatchUpdate(keys, flows, nil); err != nil {
			return fmt.Errorf("write the flows: %w", err)
		}
	}
	for i := range rows {
		k.settleLocked(&rows[i])
	}
	return nil
}

// flowLocked reads a flow and says whether it lives.
func (k *Kernel) flowLocked(key relayFlowKey) (f relayFlow, live bool, err error) {
	err = k.maps.Flows.Lookup(&key, &f)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return relayFlow{}, false, nil
	}
	if err != nil {
		return relayFlow{}, false, fmt.Errorf("read a flow: %w", err)
	}
	return f, k.table.direction(f) != nil, nil
}

// again reports whether a row is a pair that is in the table already.
func (r *row) again() bool { return r.live[0] && r.live[1] && r.old[0].Slot == r.old[1].Slot }

// fillLocked gives a row its slot, a new one unless the pair has one.
func (k *Kernel) fillLocked(r *row) bool {
	if r.again() {
		for d := range r.flows {
			f, old := &r.flows[d], &r.old[d]
			f.Slot, f.Generation, f.Direction = old.Slot, old.Generation, old.Direction
		}
		return true
	}
	slot, ok := k.table.take()
	if !ok {
		return false
	}
	for d := range r.flows {
		if r.live[d] {
			r.carried[d] = k.table.direction(r.old[d]).traffic()
		}
	}
	generation := k.table.start(slot, r.Terms, r.carried)
	k.table.keys[slot] = r.keys[0]
	for d := range r.flows {
		r.flows[d].Slot, r.flows[d].Generation = slot, generation
	}
	return true
}

// settleLocked finishes a row whose flows are in the maps: what a redirected
// direction has counted in its old slot in the meantime is not lost.
func (k *Kernel) settleLocked(r *row) {
	for d := range r.flows {
		now := k.table.direction(r.flows[d])
		if r.again() {
			now.setTerms(r.Terms)
			atomic.StoreUint64(&now.Seen, coarseNow())
			continue
		}
		if !r.live[d] {
			continue
		}
		old := k.table.direction(r.old[d])
		k.table.end(r.keys[d], r.old[d])
		late := old.traffic()
		atomic.AddUint64(&now.Packets, late.Packets-r.carried[d].Packets)
		atomic.AddUint64(&now.Bytes, late.Bytes-r.carried[d].Bytes)
	}
}

// undoLocked takes back rows that have a slot, whether or not their flows are in
// the maps.
func (k *Kernel) undoLocked(rows []row) {
	for i := range rows {
		r := &rows[i]
		for d, key := range r.keys {
			if r.live[d] {
				k.maps.Flows.Put(&key, &r.old[d])
			} else {
				k.maps.Flows.Delete(&key)
			}
			if !r.again() {
				k.table.end(key, r.flows[d])
			}
		}
	}
}

// Remove implements Plane.
func (k *Kernel) Remove(pair Pair) (Counters, error) {
	counters, err := k.RemoveBatch([]Pair{pair})
	if err != nil {
		return Counters{}, err
	}
	return counters[0], nil
}

// RemoveBatch is Remove for many pairs at once. The counters are in the order of
// the pairs. After an error no pair forwards, but some may still be in the table:
// remove them again.
func (k *Kernel) RemoveBatch(pairs []Pair) ([]Counters, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, fmt.Errorf("remove pairs: %w", errClosed)
	}
	var keys []relayFlowKey
	ended := make([][2]*relayDirection, len(pairs))
	for i, p := range pairs {
		for d, l := range [2]Leg{p.A, p.B} {
			key := keyOf(p.Protocol, l)
			f, is, err := k.leadsLocked(key, [2]Leg{p.B, p.A}[d])
			if err != nil {
				return nil, fmt.Errorf("remove pairs: %w", err)
			}
			if is {
				ended[i][d] = k.table.direction(f)
				k.table.end(key, f)
				keys = append(keys, key)
			}
		}
	}
	if len(keys) > 0 {
		if _, err := k.maps.Flows.BatchDelete(keys, nil); err != nil {
			return nil, fmt.Errorf("remove pairs: delete the flows: %w", err)
		}
	}
	counters := make([]Counters, len(pairs))
	for i := range pairs {
		counters[i] = countersOf(ended[i])
	}
	return counters, nil
}

// leadsLocked finds the flow of a key and reports whether it lives and goes to a
// leg.
func (k *Kernel) leadsLocked(key relayFlowKey, to Leg) (f relayFlow, is bool, err error) {
	f, live, err := k.flowLocked(key)
	if err != nil || !live {
		return relayFlow{}, false, err
	}
	peer := keyOf(Protocol(key.Protocol), to)
	return f, reverseKey(key, f) == peer, nil
}

func countersOf(directions [2]*relayDirection) (c Counters) {
	if d := directions[0]; d != nil {
		c.FromA = d.traffic()
	}
	if d := directions[1]; d != nil {
		c.FromB = d.traffic()
	}
	return c
}

// Counters implements Plane.
func (k *Kernel) Counters(pair Pair) (Counters, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return Counters{}, fmt.Errorf("read counters: %w", errClosed)
	}
	var found [2]*relayDirection
	for d, l := range [2]Leg{pair.A, pair.B} {
		f, is, err := k.leadsLocked(keyOf(pair.Protocol, l), [2]Leg{pair.B, pair.A}[d])
		if err != nil {
			return Counters{}, fmt.Errorf("read counters: %w", err)
		}
		if is {
			found[d] = k.table.direction(f)
		}
	}
	return countersOf(found), nil
}

// Other returns the leg that packets of a leg are sent on to, if the table has
// a pair with it.
func (k *Kernel) Other(protocol Protocol, leg Leg) (Leg, bool) {
	key := keyOf(protocol, leg)
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return Leg{}, false
	}
	f, live, err := k.flowLocked(key)
	if err != nil || !live {
		return Leg{}, false
	}
	from, to := k.own.legs(key, f)
	return to, from.Local == leg.Local
}
