package udp

import (
	"math"
	"net/netip"
	"sync/atomic"

	"github.com/netport/netport/bpf"
)

// route is one direction of a pair: where packets from a leg go.
type route struct {
	from, to bpf.Leg
	in, out  *socket
	address  []byte // raw form of to.Remote; nil: out is connected to it
	source   []byte // control message that makes packets leave from to.Local; nil: out is bound to it
	count    *traffic
	meter    *meter // nil: no limit
	// maxSegment is the longest packet that the way has let the kernel cut out
	// of a larger message.
	maxSegment atomic.Int32
}

// newRoute returns the way from a leg at in to another leg by out. It goes on
// with the count and the meter of old, the way in whose place it comes, if
// there is one.
func newRoute(in, out *socket, from, to bpf.Leg, terms bpf.Terms, old *route) *route {
	r := &route{from: from, to: to, in: in, out: out, source: out.source(to.Local)}
	r.maxSegment.Store(math.MaxInt32)
	if !out.remote.IsValid() {
		r.address = appendSockaddr(nil, to.Remote, out.family)
	}
	if old != nil {
		r.count, r.meter = old.count, newMeter(terms, old.meter)
	} else {
		r.count, r.meter = new(traffic), newMeter(terms, nil)
	}
	return r
}

// name returns the raw form of the address that packets are sent to.
func (r *route) name() (*byte, uint32) {
	if r.address == nil {
		return nil, 0
	}
	return &r.address[0], uint32(len(r.address))
}

// find returns the way of packets that come from source to an address of the
// relay.
func find(routes *[]*route, source netip.AddrPort, local netip.Addr) *route {
	if routes == nil {
		return nil
	}
	for _, r := range *routes {
		if r.from.Remote == source && r.from.Local == local {
			return r
		}
	}
	return nil
}

// traffic is bpf.Traffic, counted while it flows.
type traffic struct{ packets, bytes atomic.Uint64 }

func (t *traffic) add(packets, bytes int) {
	t.packets.Add(uint64(packets))
	t.bytes.Add(uint64(bytes))
}

func (t *traffic) load() bpf.Traffic {
	return bpf.Traffic{Packets: t.packets.Load(), Bytes: t.bytes.Load()}
}
