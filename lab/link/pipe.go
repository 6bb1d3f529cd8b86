package link

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	ethernetHeader = 14
	heldLimit      = 256 << 20 // bytes a direction holds at most, whatever its shape
)

// Counters say what became of the frames of one direction. Accepted + Duplicated = Delivered + Overflowed + Lost +
// Refused + what is still on the way.
type Counters struct {
	Accepted   uint64 // frames that entered the link
	Delivered  uint64 // frames that left it
	Bytes      uint64 // of the frames that left it
	Overflowed uint64 // dropped: the queue was full
	Lost       uint64 // dropped on the way
	Duplicated uint64 // copies made
	HeldBack   uint64 // sent on later, for reordering
	Corrupted  uint64 // with a bit flipped
	Refused    uint64 // not taken by the device at the other end, for instance because it was down
	Missed     uint64 // dropped by the kernel before they entered, because this program was too slow
}

func (c Counters) String() string {
	return fmt.Sprintf("accepted=%d delivered=%d bytes=%d overflowed=%d lost=%d duplicated=%d held_back=%d corrupted=%d refused=%d missed=%d",
		c.Accepted, c.Delivered, c.Bytes, c.Overflowed, c.Lost, c.Duplicated, c.HeldBack, c.Corrupted, c.Refused, c.Missed)
}

// pipe is one direction of a link: frames go in with the time, and come out when they are due. It has no clock and
// does no I/O; its link's lock guards it.
type pipe struct {
	shape    Shape
	dice     *rand.Rand
	bad      bool      // the state of Shape.Burst
	free     time.Time // when the rate has carried all that it took
	last     time.Time // when the last frame that keeps order is due
	waiting  frameHeap
	held     int // bytes in waiting
	sequence uint64
	counters Counters
	buffers  *buffers
}

// frame waits until it is due.
type frame struct {
	due      time.Time
	sequence uint64 // keeps order among frames due at the same time
	data     []byte
}

// accept takes a frame that entered the link. The frame is the pipe's from now on.
func (p *pipe) accept(now time.Time, data []byte) {
	p.counters.Accepted++
	sent, ok := p.transmit(now, len(data))
	if !ok {
		p.counters.Overflowed++
		p.buffers.recycle(data)
		return
	}
	if p.loses() {
		p.counters.Lost++
		p.buffers.recycle(data)
		return
	}
	if p.chance(p.shape.Corrupt) && len(data) > ethernetHeader {
		bit := p.dice.IntN(8 * (len(data) - ethernetHeader))
		data[ethernetHeader+bit/8] ^= 1 << (bit % 8)
		p.counters.Corrupted++
	}
	due := sent.Add(p.shape.Delay)
	if p.shape.Jitter > 0 {
		due = due.Add(time.Duration(p.dice.Int64N(int64(p.shape.Jitter) + 1)))
	}
	if p.chance(p.shape.Reorder) {
		due = due.Add(p.shape.ReorderBy)
		p.counters.HeldBack++
	} else {
		if due.Before(p.last) {
			due = p.last
		}
		p.last = due
	}
	p.push(due, data)
	if p.chance(p.shape.Duplicate) {
		p.counters.Duplicated++
		p.push(due, append(p.buffers.get()[:0], data...))
	}
}

// transmit says when the rate has carried a frame of so many bytes, unless the queue before it is full.
func (p *pipe) transmit(now time.Time, size int) (time.Time, bool) {
	if p.held+size > heldLimit {
		return time.Time{}, false
	}
	if p.shape.Rate == 0 {
		return now, true
	}
	if p.free.Before(now) {
		p.free = now
	}
	queued := p.free.Sub(now).Seconds() * float64(p.shape.Rate) / 8
	if queued > 0 && queued+float64(size) > float64(p.shape.Queue) {
		return time.Time{}, false
	}
	p.free = p.free.Add(time.Duration(float64(size) * 8 / float64(p.shape.Rate) * float64(time.Second)))
	return p.free, true
}

// loses throws the dice for one frame.
func (p *pipe) loses() bool {
	burst := &p.shape.Burst
	change := burst.ToBad
	if p.bad {
		change = burst.ToGood
	}
	if p.chance(change) {
		p.bad = !p.bad
	}
	share := burst.LossGood
	if p.bad {
		share = burst.LossBad
	}
	lost := p.chance(share)
	return p.chance(p.shape.Loss) || lost
}

func (p *pipe) chance(share float64) bool { return share > 0 && p.dice.Float64() < share }

func (p *pipe) push(due time.Time, data []byte) {
	p.sequence++
	p.held += len(data)
	heap.Push(&p.waiting, frame{due: due, sequence: p.sequence, data: data})
}

// next says when the next frame is due, if any is waiting.
func (p *pipe) next() (time.Time, bool) {
	if len(p.waiting) == 0 {
		return time.Time{}, false
	}
	return p.waiting[0].due, true
}

// pop returns the next frame if it is due.
func (p *pipe) pop(now time.Time) ([]byte, bool) {
	if due, ok := p.next(); !ok || due.After(now) {
		return nil, false
	}
	data := heap.Pop(&p.waiting).(frame).data
	p.held -= len(data)
	return data, true
}

// frameHeap is ordered by time.
type frameHeap []frame

func (h frameHeap) Len() int { return len(h) }
func (h frameHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].sequence < h[j].sequence
	}
	return h[i].due.Before(h[j].due)
}
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)   { *h = append(*h, x.(frame)) }
func (h *frameHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = frame{}
	*h = old[:len(old)-1]
	return last
}

// buffers keeps frames for reuse: at a gigabit per second new ones would keep the collector busy.
type buffers struct {
	size int
	idle [][]byte
}

func (b *buffers) get() []byte {
	if len(b.idle) == 0 {
		return make([]byte, b.size)
	}
	last := b.idle[len(b.idle)-1]
	b.idle = b.idle[:len(b.idle)-1]
	return last
}

func (b *buffers) recycle(data []byte) { b.idle = append(b.idle, data[:cap(data)]) }
