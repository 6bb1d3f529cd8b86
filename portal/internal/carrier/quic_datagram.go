package carrier

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/quic-go/quic-go"
)

const (
	// mostInPacket is above what any packet of quic-go carries of a datagram.
	mostInPacket = 1452
	// limitTime is how long it is believed how much a packet carries: quic-go
	// finds out about larger ones.
	limitTime = time.Second
)

// outbox holds datagrams until quic-go takes them: it keeps 32, and then has its
// caller wait.
type outbox struct {
	conn *quic.Conn
	wake chan struct{}

	mu      sync.Mutex
	backlog backlog

	// The following belong to run.
	scratch []byte
	number  uint32 // of the datagrams that are cut
	limit   int    // how much a packet carries
	until   time.Time
}

type flowDatagram struct {
	stream uint32
	body   []byte
}

func (o *outbox) init(conn *quic.Conn) {
	o.conn, o.wake = conn, make(chan struct{}, 1)
}

// Datagram implements Conn.
func (c *quicCarrier) Datagram(stream uint32, body []byte) bool {
	o := &c.outbox
	o.mu.Lock()
	lost, taken := o.backlog.put(stream, bytes.Clone(body), time.Now())
	o.mu.Unlock()
	c.stats.dropped.Add(uint64(lost))
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return taken
}

func (o *outbox) next() (d flowDatagram, late int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.stream, d.body, late, ok = o.backlog.next(time.Now())
	return d, late, ok
}

// run gives quic-go the datagrams until the carrier ends.
func (o *outbox) run(c *quicCarrier) {
	for {
		select {
		case <-c.live.ended:
			return
		case <-o.wake:
		}
		for {
			d, late, ok := o.next()
			c.stats.dropped.Add(uint64(late))
			if !ok {
				break
			}
			c.live.used(0)
			if sent, err := o.send(d); err != nil {
				c.stats.dropped.Add(1)
			} else {
				c.stats.sent.Add(uint64(sent))
			}
		}
	}
}

// send gives quic-go a datagram, whole if a packet carries it. How much that is
// quic-go says when it was too much.
func (o *outbox) send(d flowDatagram) (sent int, err error) {
	if now := time.Now(); now.After(o.until) {
		o.limit, o.until = mostInPacket, now.Add(limitTime)
	}
	for {
		if wire.WholeHeaderLen+len(d.body) <= o.limit {
			sent, err = o.put(wire.Fragment{Stream: d.stream, Data: d.body})
		} else {
			sent, err = o.cut(d)
		}
		var long *quic.DatagramTooLargeError
		if !errors.As(err, &long) || int(long.MaxDatagramPayloadSize) >= o.limit {
			return sent, err
		}
		o.limit = int(long.MaxDatagramPayloadSize)
	}
}

var errSmallPackets = errors.New("packets are too small for parts of a datagram")

// cut sends a datagram in parts.
func (o *outbox) cut(d flowDatagram) (sent int, err error) {
	most := o.limit - wire.PartHeaderLen
	if most < wire.MinPart {
		return 0, errSmallPackets
	}
	o.number++
	for at := 0; at < len(d.body); at += most {
		n, err := o.put(wire.Fragment{
			Stream: d.stream, Part: true, Number: o.number, Length: len(d.body), Offset: at,
			Data: d.body[at:min(at+most, len(d.body))],
		})
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

func (o *outbox) put(f wire.Fragment) (int, error) {
	o.scratch = f.AppendTo(o.scratch[:0])
	return len(o.scratch), o.conn.SendDatagram(o.scratch)
}

// receiveDatagrams handles the peer's datagrams.
func (c *quicCarrier) receiveDatagrams() {
	var whole reassembly
	for {
		b, err := c.conn.ReceiveDatagram(c.conn.Context())
		if err != nil {
			c.Abort(c.explain(err))
			return
		}
		f, err := wire.ParseFragment(b)
		if err == nil {
			c.live.heard.set()
			if body, ok := whole.add(f, time.Now()); ok {
				err = c.handle(wire.FrameHeader{Type: wire.FrameDatagram, Length: len(body), Stream: f.Stream}, body)
			}
		}
		if err != nil {
			c.Abort(err)
			return
		}
	}
}
