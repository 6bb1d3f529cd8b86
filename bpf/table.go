//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// table is what the daemon keeps of the kernel's table. The maps hold the truth:
// a pair has a slot, with its counters and limits, and up to two flows, which
// say where its packets go. A flow counts only while its generation is that of
// its direction in the slot; so one store ends a direction, and what still
// finds the flow drops.
//
// A direction that a later pair has taken over has its flow in that pair's slot,
// and generation 0 in its old one. A slot with two such directions is free.
type table struct {
	memory []byte // the slots, shared with the kernel
	slots  []relaySlot
	used   []uint64       // a bit for each slot
	next   int            // where to look for a free slot: it goes round, so that a slot rests
	keys   []relayFlowKey // one of the flows of each slot in use
	// generation is the latest one given. They are never given twice, save after
	// 2^32 pairs.
	generation uint32
}

// flowBack is FLOW_BACK of maps.h.
const flowBack = 1

// mapSlots makes the slots visible.
func (t *table) mapSlots(slots *ebpf.Map) error {
	n := int(slots.MaxEntries())
	memory, err := unix.Mmap(slots.FD(), 0, n*int(unsafe.Sizeof(relaySlot{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the slots: %w", err)
	}
	t.memory = memory
	t.slots = unsafe.Slice((*relaySlot)(unsafe.Pointer(&memory[0])), n)
	t.used = make([]uint64, (n+63)/64)
	t.keys = make([]relayFlowKey, n)
	return nil
}

func (t *table) unmap() error {
	if t.memory == nil {
		return nil
	}
	memory := t.memory
	t.memory, t.slots = nil, nil
	return unix.Munmap(memory)
}

// take finds a free slot.
func (t *table) take() (slot uint32, ok bool) {
	for range len(t.used) + 1 {
		word := t.next / 64
		free := ^t.used[word] >> (t.next % 64) << (t.next % 64)
		if i := word*64 + bits.TrailingZeros64(free); free != 0 && i < len(t.slots) {
			t.used[word] |= 1 << (i % 64)
			t.next = (i + 1) % len(t.slots)
			return uint32(i), true
		}
		t.next = (word + 1) % len(t.used) * 64
	}
	return 0, false
}

func (t *table) free(slot uint32) {
	t.used[slot/64] &^= 1 << (slot % 64)
	t.keys[slot] = relayFlowKey{}
}

func (t *table) inUse(slot int) bool { return t.used[slot/64]&(1<<(slot%64)) != 0 }

// direction returns what a flow counts in, or nil if the flow is dead.
func (t *table) direction(f relayFlow) *relayDirection {
	if int(f.Slot) >= len(t.slots) || f.Direction > 1 {
		return nil
	}
	d := &t.slots[f.Slot].From[f.Direction]
	if g := atomic.LoadUint32(&d.Generation); g == 0 || g != f.Generation {
		return nil
	}
	return d
}

// end makes a direction dead, and its slot free with the last one. The flow was
// found by key.
func (t *table) end(key relayFlowKey, f relayFlow) {
	s := &t.slots[f.Slot]
	atomic.StoreUint32(&s.From[f.Direction].Generation, 0)
	if atomic.LoadUint32(&s.From[1-f.Direction].Generation) == 0 {
		t.free(f.Slot)
	} else if t.keys[f.Slot] == key {
		t.keys[f.Slot] = reverseKey(key, f)
	}
}

// start gives a slot a new generation and begins both of its directions.
func (t *table) start(slot uint32, terms Terms, carried [2]Traffic) (generation uint32) {
	if t.generation++; t.generation == 0 {
		t.generation = 1
	}
	seen := coarseNow()
	for i := range t.slots[slot].From {
		d := &t.slots[slot].From[i]
		*d = relayDirection{Packets: carried[i].Packets, Bytes: carried[i].Bytes, Seen: seen}
		d.setTerms(terms)
		atomic.StoreUint32(&d.Generation, t.generation)
	}
	return t.generation
}

// forever is the lifetime in the maps, in seconds, of what has none.
const forever = 1<<32 - 1

func (d *relayDirection) setTerms(terms Terms) {
	lifetime := uint32(forever)
	if terms.Lifetime > 0 {
		lifetime = uint32(min((terms.Lifetime-1)/time.Second+1, forever-1))
	}
	atomic.StoreUint32(&d.Lifetime, lifetime)
	atomic.StoreUint32(&d.PacketCost, cost(terms.Packets, 1))
	atomic.StoreUint32(&d.KibCost, cost(terms.Bytes, 1024))
}

// terms returns what setTerms has set, as exactly as costs keep rates.
func (d *relayDirection) terms() Terms {
	lifetime := atomic.LoadUint32(&d.Lifetime)
	if lifetime == forever {
		lifetime = 0
	}
	return Terms{
		Lifetime: time.Duration(lifetime) * time.Second,
		Packets:  rate(atomic.LoadUint32(&d.PacketCost), 1),
		Bytes:    rate(atomic.LoadUint32(&d.KibCost), 1024),
	}
}

// cost returns how many nanoseconds some units take at a rate, rounded up: so
// no rate is exceeded. The slowest rate is one unit in 4.29 s.
func cost(rate, units uint64) uint32 {
	if rate == 0 {
		return 0
	}
	n := units * uint64(time.Second)
	return uint32(min((n-1)/rate+1, 1<<32-1))
}

// rate is the reverse of cost.
func rate(cost uint32, units uint64) uint64 {
	if cost == 0 {
		return 0
	}
	return units * uint64(time.Second) / uint64(cost)
}

func (d *relayDirection) traffic() Traffic {
	return Traffic{Packets: atomic.LoadUint64(&d.Packets), Bytes: atomic.LoadUint64(&d.Bytes)}
}

// coarseNow is the clock of relayDirection.Seen.
func coarseNow() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		panic("no coarse monotonic clock: " + err.Error()) // Linux has it since 2.6.32
	}
	return uint64(t.Nano())
}

// keyOf is what packets of a leg have in common.
func keyOf(p Protocol, l Leg) relayFlowKey {
	return relayFlowKey{
		Addr:     rawAddr(l.Remote.Addr()),
		Port:     toNetwork(l.Remote.Port()),
		Local:    toNetwork(l.Port),
		Protocol: uint8(p),
	}
}

// reverseKey is the key of the other direction of a flow.
func reverseKey(key relayFlowKey, f relayFlow) relayFlowKey {
	return relayFlowKey{Addr: f.Peer, Port: f.PeerPort, Local: f.PeerLocal, Protocol: key.Protocol}
}

// legs returns the leg that a flow comes from and the one that it goes to.
func (o *own) legs(key relayFlowKey, f relayFlow) (from, to Leg) {
	from = Leg{Remote: netip.AddrPortFrom(addrOf(key.Addr), toNetwork(key.Port)), Port: toNetwork(key.Local)}
	to = Leg{Remote: netip.AddrPortFrom(addrOf(f.Peer), toNetwork(f.PeerPort)), Port: toNetwork(f.PeerLocal)}
	if int(f.Own) < len(o.list) && int(f.PeerOwn) < len(o.list) {
		from.Local, to.Local = o.list[f.Own], o.list[f.PeerOwn]
	}
	return from, to
}

// toNetwork turns a port from the machine's byte order to the network's, and
// back.
func toNetwork(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// eachFlow calls do with all flows, some at a time. do may change the table.
func (k *Kernel) eachFlow(do func([]relayFlowKey, []relayFlow) bool) error {
	const some = 4096
	keys, flows := make([]relayFlowKey, some), make([]relayFlow, some)
	var at ebpf.MapBatchCursor
	for {
		n, err := k.maps.Flows.BatchLookup(&at, keys, flows, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the flows: %w", err)
		}
		if !do(keys[:n], flows[:n]) || err != nil {
			return nil
		}
	}
}
