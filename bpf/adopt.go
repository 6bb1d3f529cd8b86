//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
)

// adopt makes the daemon's side of the table from what is in the maps, and tidies
// up after a daemon that was killed in the middle of a change.
func (k *Kernel) adopt() error {
	if err := k.table.mapSlots(k.maps.Slots); err != nil {
		return err
	}
	if err := k.adoptOwn(); err != nil {
		return err
	}
	if err := k.dismissAll(); err != nil {
		return err
	}
	if err := k.forgetEvents(); err != nil {
		return err
	}
	t := &k.table
	found := make([]uint8, len(t.slots)) // a bit for each direction that has a flow
	var dead []relayFlowKey
	err := k.eachFlow(func(keys []relayFlowKey, flows []relayFlow) bool {
		for i, f := range flows {
			if t.direction(f) == nil {
				dead = append(dead, keys[i])
				continue
			}
			found[f.Slot] |= 1 << f.Direction
			t.used[f.Slot/64] |= 1 << (f.Slot % 64)
			t.keys[f.Slot] = keys[i]
			t.generation = max(t.generation, f.Generation)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, key := range dead {
		if err := k.maps.Flows.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete a dead flow: %w", err)
		}
	}
	for slot, directions := range found {
		for d := range t.slots[slot].From {
			if directions&(1<<d) == 0 {
				atomic.StoreUint32(&t.slots[slot].From[d].Generation, 0)
			}
		}
	}
	return nil
}

// Pairs returns the pairs of the table with their terms, in no order: after an
// Open, those that were adopted. Rates are as exact as the kernel keeps them. The
// table may be changed meanwhile; pairs that come or go are then seen or not.
func (k *Kernel) Pairs() iter.Seq2[Pair, Terms] {
	return func(yield func(Pair, Terms) bool) {
		err := k.eachFlow(func(keys []relayFlowKey, flows []relayFlow) bool {
			for _, e := range k.entries(keys, flows) {
				if !yield(e.Pair, e.Terms) {
					return false
				}
			}
			return true
		})
		if err != nil {
			k.log.Error("pairs not read", "error", err)
		}
	}
}

// entries returns the pairs of some flows. Each is named by its first direction
// that has a flow.
func (k *Kernel) entries(keys []relayFlowKey, flows []relayFlow) []Entry {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var list []Entry
	for i, f := range flows {
		d := k.table.direction(f)
		if d == nil || f.Direction == 1 && atomic.LoadUint32(&k.table.slots[f.Slot].From[0].Generation) != 0 {
			continue
		}
		list = append(list, Entry{k.pair(keys[i], f), d.terms()})
	}
	return list
}

// pair returns the pair that a flow belongs to.
func (k *Kernel) pair(key relayFlowKey, f relayFlow) Pair {
	from, to := k.own.legs(key, f)
	if f.Direction == 1 {
		from, to = to, from
	}
	return Pair{Protocol: Protocol(key.Protocol), A: from, B: to}
}

// Ended is a pair that nothing more is expected of.
type Ended struct {
	Pair
	// Expired: the pair was idle for its lifetime and forwards no longer. Else
	// its TCP connection has ended, by a FIN in both directions or a RST; what
	// is still on its way is forwarded.
	Expired bool
	// Idle is how long no packet has come from either leg.
	Idle time.Duration
}

// Closed returns the pairs that have ended, for their owner to remove. After the
// FINs of a TCP connection its last packets may still be repeated: that is what
// Idle is for.
func (k *Kernel) Closed() []Ended {
	var list []Ended
	for word := range (k.options.Capacity + 63) / 64 {
		list = append(list, k.closedIn(word)...)
	}
	return list
}

// closedIn looks at the slots of one word of table.used: the table is not locked
// for longer.
func (k *Kernel) closedIn(word int) (list []Ended) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed || k.table.used[word] == 0 {
		return nil
	}
	now := coarseNow()
	for slot := word * 64; slot < min(word*64+64, len(k.table.slots)); slot++ {
		if !k.table.inUse(slot) {
			continue
		}
		e, ended := k.table.slots[slot].ended(now)
		if !ended {
			continue
		}
		key := k.table.keys[slot]
		if f, live, err := k.flowLocked(key); live && err == nil {
			e.Pair = k.pair(key, f)
			list = append(list, e)
		}
	}
	return list
}

// The bits of relayDirection.Closed, as in maps.h.
const (
	closedFIN = 1
	closedRST = 2
)

// ended judges a slot.
func (s *relaySlot) ended(now uint64) (Ended, bool) {
	a, b := &s.From[0], &s.From[1]
	seen := max(atomic.LoadUint64(&a.Seen), atomic.LoadUint64(&b.Seen))
	idle := time.Duration(max(now, seen) - seen)
	lifetime := time.Duration(atomic.LoadUint32(&a.Lifetime)) * time.Second
	expired := idle > lifetime
	fromA, fromB := atomic.LoadUint32(&a.Closed), atomic.LoadUint32(&b.Closed)
	over := fromA&fromB&closedFIN != 0 || (fromA|fromB)&closedRST != 0
	return Ended{Expired: expired, Idle: idle}, expired || over
}
