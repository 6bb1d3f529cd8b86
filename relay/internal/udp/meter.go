package udp

import (
	"sync"
	"time"

	"github.com/netport/netport/bpf"
)

// burst is how far a direction may be ahead of its rate: the tolerance of
// bpf.Terms.
const burst = 100 * time.Millisecond

// meter holds one direction of a pair to its rates, by the generic cell rate
// algorithm. Every packet moves two points in time ahead, by what it costs at
// the rate of packets and at the rate of bytes; when one of them lies further
// ahead of now than burst, a packet does not conform and moves neither. The
// kernel planes do the same with the same figures, in nanoseconds.
type meter struct {
	packetCost int64 // of a packet; 0: no limit
	kibCost    int64 // of 1,024 bytes; 0: no limit

	mu                 sync.Mutex // guards the following
	packetDue, byteDue int64
}

// newMeter returns the meter of some terms, which goes on where old is, or nil
// where they set no limit.
func newMeter(terms bpf.Terms, old *meter) *meter {
	if terms.Packets == 0 && terms.Bytes == 0 {
		return nil
	}
	m := &meter{packetCost: cost(terms.Packets, 1), kibCost: cost(terms.Bytes, 1024)}
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		if m.packetCost > 0 {
			m.packetDue = old.packetDue
		}
		if m.kibCost > 0 {
			m.byteDue = old.byteDue
		}
	}
	return m
}

// cost returns how many nanoseconds some units take at a rate, rounded up.
func cost(rate uint64, units int64) int64 {
	if rate == 0 {
		return 0
	}
	n := uint64(units) * uint64(time.Second)
	return int64((n-1)/rate + 1)
}

// admit returns how many of the packets that make a payload, all of one size
// but for the last, conform at now, in nanoseconds of any clock that does not
// go back. Those are the first ones.
func (m *meter) admit(now int64, payload []byte, segment int) (packets int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for left := packetsIn(len(payload), segment); left > 0; left-- {
		if max(m.packetDue, m.byteDue)-now > int64(burst) {
			break
		}
		size := min(segment, len(payload))
		payload = payload[size:]
		m.packetDue = max(m.packetDue, now) + m.packetCost
		m.byteDue = max(m.byteDue, now) + int64(size)*m.kibCost/1024
		packets++
	}
	return packets
}
