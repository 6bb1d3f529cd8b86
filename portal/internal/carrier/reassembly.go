package carrier

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// maxPartial and maxPartialBytes bound the datagrams of which parts are
	// missing. The oldest makes room.
	maxPartial      = 64
	maxPartialBytes = 1 << 20
	// partialTime is how long a datagram waits for its parts: they are sent one
	// behind the other.
	partialTime = 2 * time.Second
)

// reassembly puts datagrams together from their parts.
type reassembly struct {
	partial []*partialDatagram // oldest first
	bytes   int
}

// partialDatagram is a datagram of which parts are missing.
type partialDatagram struct {
	stream uint32
	number uint32
	began  time.Time
	body   []byte
	have   int      // bytes
	parts  [][2]int // first byte and end of each part
}

// add takes a datagram, or a part of one, and returns the datagram if it is
// whole.
func (r *reassembly) add(f wire.Fragment, now time.Time) (body []byte, whole bool) {
	if !f.Part {
		return f.Data, true
	}
	for len(r.partial) > 0 && now.Sub(r.partial[0].began) > partialTime {
		r.drop(0)
	}
	at := slices.IndexFunc(r.partial, func(p *partialDatagram) bool { return p.number == f.Number })
	if at >= 0 && (r.partial[at].stream != f.Stream || len(r.partial[at].body) != f.Length) {
		r.drop(at) // the number means another one now
		at = -1
	}
	if at < 0 {
		for len(r.partial) > 0 && (len(r.partial) >= maxPartial || r.bytes+f.Length > maxPartialBytes) {
			r.drop(0)
		}
		r.bytes += f.Length
		r.partial = append(r.partial, &partialDatagram{stream: f.Stream, number: f.Number, began: now, body: make([]byte, f.Length)})
		at = len(r.partial) - 1
	}
	p := r.partial[at]
	if !p.put(f.Offset, f.Data) || p.have < len(p.body) {
		return nil, false
	}
	r.drop(at)
	return p.body, true
}

// put adds a part. One that has bytes that are there already says nothing new.
func (p *partialDatagram) put(offset int, data []byte) bool {
	end := offset + len(data)
	for _, part := range p.parts {
		if offset < part[1] && part[0] < end {
			return false
		}
	}
	p.parts = append(p.parts, [2]int{offset, end})
	copy(p.body[offset:], data)
	p.have += len(data)
	return true
}

func (r *reassembly) drop(at int) {
	r.bytes -= len(r.partial[at].body)
	r.partial = slices.Delete(r.partial, at, at+1)
}
