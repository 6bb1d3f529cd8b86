package carrier

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// numbered is a datagram of a length whose beginning says which one it is.
func numbered(n uint32, length int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, n), make([]byte, length-4)...)
}

// TestFloodOfOneFlowLeavesTheOthersTheirTurns: one flow sends a hundred times
// what the carrier takes, another a little; the little one loses nothing and
// waits for no more than a datagram of each other.
func TestFloodOfOneFlowLeavesTheOthersTheirTurns(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, size := range []int{4, 100, 1200, 65000} {
		var l backlog
		var flood, got uint32
		for call := range uint32(100) {
			for range 100 {
				l.put(1, numbered(flood, size), now)
				flood++
			}
			if lost, taken := l.put(2, numbered(call, 200), now); !taken {
				t.Fatalf("flood of %d bytes: datagram %d of the call found no room, %d lost", size, call, lost)
			}
			before := got
			for range 2 {
				stream, b, _, ok := l.next(now)
				if !ok || stream == 2 && binary.BigEndian.Uint32(b) != got {
					t.Fatalf("flood of %d bytes: got %x of flow %d, %t", size, b[:4], stream, ok)
				}
				if stream == 2 {
					got++
				}
			}
			if got == before {
				t.Fatalf("flood of %d bytes: the call's datagram %d waits behind two of the flood", size, call)
			}
		}
		if flood == 0 || l.count > maxDatagrams || l.bytes > maxDatagramBytes {
			t.Errorf("flood of %d bytes: %d datagrams and %d bytes wait", size, l.count, l.bytes)
		}
	}
}

// TestBacklogKeepsItsBooks: whatever comes and goes, it is bounded, each flow's
// datagrams stay in order, none comes twice, and what was lost is counted.
func TestBacklogKeepsItsBooks(t *testing.T) {
	now := time.Unix(1e9, 0)
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var l backlog
		sent, last := make(map[uint32]uint32), make(map[uint32]uint32)
		put, lost, got := 0, 0, 0
		check := func() {
			stream, b, _, ok := l.next(now)
			if !ok {
				return
			}
			got++
			if n := binary.BigEndian.Uint32(b); n <= last[stream] {
				t.Fatalf("seed %d: flow %d: %d after %d", seed, stream, n, last[stream])
			} else {
				last[stream] = n
			}
		}
		for range 5000 {
			if rng.IntN(3) == 0 {
				check()
				continue
			}
			stream := uint32(rng.IntN(1 + rng.IntN(400)))
			sent[stream]++
			put++
			n, taken := l.put(stream, numbered(sent[stream], 4+rng.IntN(1<<rng.IntN(17))), now)
			if lost += n; n == 0 && !taken {
				t.Fatalf("seed %d: neither taken nor lost", seed)
			}
			if l.count > maxDatagrams || l.bytes > maxDatagramBytes {
				t.Fatalf("seed %d: %d datagrams, %d bytes", seed, l.count, l.bytes)
			}
		}
		for l.count > 0 {
			check()
		}
		check()
		if put != got+lost || l.bytes != 0 || len(l.flows) != 0 || l.turns != nil {
			t.Errorf("seed %d: %d put, %d came and %d were lost; left %d bytes, %d flows", seed, put, got, lost, l.bytes, len(l.flows))
		}
	}
}

// TestLateDatagramsAreDropped: what has waited too long is of no use to its
// application, and what came after it is not kept waiting by it.
func TestLateDatagramsAreDropped(t *testing.T) {
	now := time.Unix(1e9, 0)
	var l backlog
	for i := range uint32(3) {
		l.put(1, numbered(i, 100), now)
		l.put(2, numbered(i, 100), now)
	}
	later := now.Add(datagramTime)
	l.put(1, numbered(9, 100), later)
	if _, _, late, ok := l.next(later); !ok || late != 0 {
		t.Errorf("in time: %d late, %t", late, ok)
	}
	_, b, late, ok := l.next(later.Add(1))
	if more := 5; !ok || binary.BigEndian.Uint32(b) != 9 || late != more {
		t.Errorf("after its time: %d late, want %d; came %x", late, more, b)
	}
	if _, _, late, ok := l.next(later.Add(1)); ok || late != 0 || l.count != 0 || l.bytes != 0 || len(l.flows) != 0 {
		t.Errorf("at the end: %d late, %t; left %d datagrams, %d bytes, %d flows", late, ok, l.count, l.bytes, len(l.flows))
	}
}
