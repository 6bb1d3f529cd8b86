package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
)

// forward sends on what a batch has received, and returns how many packets
// that were.
func (r *Relay) forward(s *socket, b *batch) (packets int) {
	b.outCount = 0
	routes := s.routes.Load()
	for i := range b.received {
		from, payload, m := b.source(i), b.payload(i), b.meta(i)
		packets += packetsIn(len(payload), m.segment)
		way := find(routes, from, s.heardAt(m))
		switch {
		case way == nil || hasSTUN(payload, m.segment):
			r.apart(s, b, i, way)
		case m.segment < len(payload) && m.segment > int(way.maxSegment.Load()):
			each(payload, m.segment, func(p []byte) { r.queue(b, way, p, len(p), m.ecn) })
		default:
			r.queue(b, way, payload, m.segment, m.ecn)
		}
	}
	r.flush(b)
	return packets
}

// queue has packets of one size, the last of which may be shorter, sent on
// their way as far as its rates allow.
func (r *Relay) queue(b *batch, way *route, payload []byte, segment int, ecn byte) {
	if way.meter != nil {
		packets := packetsIn(len(payload), segment)
		admitted := way.meter.admit(r.clock(), payload, segment)
		r.cfg.Drops.AddN(drop.RateLimit, packets-admitted)
		if admitted == 0 {
			return
		}
		payload = payload[:min(len(payload), admitted*segment)]
	}
	if !b.add(way, payload, segment, ecn) {
		r.flush(b)
		b.add(way, payload, segment, ecn)
	}
}

// apart handles a message that does not simply go its way: packet by packet.
func (r *Relay) apart(s *socket, b *batch, i int, way *route) {
	from, m := b.source(i), b.meta(i)
	at := bpf.Leg{Remote: from, Port: s.port, Local: s.heardAt(m)}
	each(b.payload(i), m.segment, func(p []byte) {
		switch {
		case leg.IsSTUN(p):
			r.bind(s, at, p)
		case way != nil:
			r.queue(b, way, p, len(p), m.ecn)
		default:
			r.hold(s, at, p, m.ecn)
		}
	})
}

// each calls do with every packet of a message, which may have been joined from
// several of the size segment.
func each(payload []byte, segment int, do func([]byte)) {
	if len(payload) == 0 {
		do(payload)
		return
	}
	for len(payload) > 0 {
		n := min(segment, len(payload))
		do(payload[:n])
		payload = payload[n:]
	}
}

// packetsIn returns how many packets of a size make a message of some length.
func packetsIn(length, segment int) int {
	if length == 0 {
		return 1
	}
	return (length + segment - 1) / segment
}

// hasSTUN reports whether any packet of a message is STUN.
func hasSTUN(payload []byte, segment int) bool {
	for len(payload) > segment {
		if leg.IsSTUN(payload[:segment]) {
			return true
		}
		payload = payload[segment:]
	}
	return leg.IsSTUN(payload)
}

// flush sends what is queued, in runs for one socket each.
func (r *Relay) flush(b *batch) {
	b.prepare()
	for from := 0; from < b.outCount; {
		out := b.going[from].route.out
		to := from + 1
		for to < b.outCount && b.going[to].route.out == out {
			to++
		}
		r.sendRun(b, out, from, to)
		from = to
	}
	b.outCount = 0
}

// sendRun sends the messages from and to of a batch through out.
func (r *Relay) sendRun(b *batch, out *socket, from, to int) {
	for from < to {
		sent, failed := out.send(b, from, to)
		for i := from; i < from+sent; i++ {
			g := &b.going[i]
			g.route.count.add(g.packets, g.bytes)
		}
		if from += sent; from == to || failed == 0 {
			continue
		}
		g := &b.going[from]
		switch {
		case failed == unix.EBADF: // closed since the reader looked
			r.sendEach(b, from)
		case (failed == unix.EINVAL || failed == unix.EMSGSIZE || failed == unix.EIO) && g.packets > 1:
			// The way does not let the kernel cut packets of this size.
			g.route.maxSegment.Store(int32(g.segment - 1))
			r.sendEach(b, from)
		default:
			r.drop(failed, g.route.to.Remote, g.packets)
		}
		from++
	}
}

// sendEach sends the packets of one message one by one.
func (r *Relay) sendEach(b *batch, i int) {
	g := &b.going[i]
	for _, v := range b.outIovs[i][:g.pieces] {
		each(unsafe.Slice(v.Base, int(v.Len)), g.segment, func(p []byte) { r.send(g.route, p, g.ecn) })
	}
}

// send sends one packet on its way by itself: the one that is in the place of
// way by now, if the leg that way led to has moved and its socket is closed.
func (r *Relay) send(way *route, packet []byte, ecn byte) {
	err := way.out.write(packet, way.to.Local, way.to.Remote, ecn)
	for err == unix.EBADF {
		now := r.plane.route(way.from)
		if now == nil || now == way {
			break
		}
		way = now
		err = way.out.write(packet, way.to.Local, way.to.Remote, ecn)
	}
	if err != nil {
		r.drop(err, way.to.Remote, 1)
		return
	}
	way.count.add(1, len(packet))
}
