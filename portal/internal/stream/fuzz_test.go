package stream

import (
	"bytes"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// FuzzPeer feeds a stream with whatever a peer could send, in any order, while
// its own side works on. Nothing panics, and it never holds more than it
// promised.
func FuzzPeer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 10, 1, 0, 0, 10, 2, 0, 0, 10})
	f.Add([]byte{0, 0, 0, 10, 3, 0, 0, 0, 4, 0, 0, 5, 0, 0, 10, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		const window = 1000
		s := New(7, window, window)
		busy := false
		for len(script) >= 4 {
			op, n := script[0], uint64(script[1])<<16|uint64(script[2])<<8|uint64(script[3])
			script = script[4:]
			var err error
			switch op % 15 {
			case 0:
				var deliver bool
				if deliver, err = s.Receive(wire.Data{Epoch: s.Epoch(), Offset: n >> 8, Data: make([]byte, n&0xff+1)}); deliver {
					s.Queue(make([]byte, n&0xff+1))
				}
			case 1:
				_, err = s.ReceiveFin(wire.Fin{Epoch: s.Epoch(), Offset: n})
			case 2:
				err = s.ReceiveAck(wire.Ack{Epoch: s.Epoch(), Acked: n >> 8, Limit: n>>8 + n&0xff})
			case 3:
				s.ReceiveReset()
			case 4:
				if b := s.Front(); len(b) > 0 {
					s.WroteQueued(min(len(b), int(n)+1), time.Time{}, 0)
				}
			case 5:
				if s.Ended() {
					s.ToldEnd()
				}
			case 6:
				if s.AckOwed() {
					s.Ack()
				}
			case 7:
				if b := GetBlock(); !s.Append(b, min(s.Room(), int(n))) {
					PutBlock(b)
				}
			case 8:
				if !busy {
					busy = s.Next() != nil
				}
			case 9:
				if busy {
					s.Wrote()
					busy = false
				}
			case 10:
				s.Finish()
			case 11:
				s.Reset()
			case 12, 13:
				s.Leave().Return()
				busy = false
				if op%15 == 12 {
					_, _, err = s.Follow(wire.Resume{Epoch: uint32(n >> 16), Received: n & 0xffff})
				} else {
					s.Move()
				}
			case 14:
				_, err = s.Moved(wire.Resume{Epoch: s.Epoch(), Received: n})
			}
			if err != nil {
				return // the carrier closes
			}
			if queued := len(s.Front()); queued > window {
				t.Fatalf("%d bytes are queued with a window of %d", queued, window)
			}
			if held := s.Held(); held < 0 || held > int64(s.send.keptBytes)+window+1 {
				t.Fatalf("held: %d", held)
			}
		}
	})
}

// FuzzTwo joins two streams by a carrier that delivers in order, when it
// pleases. Whatever the schedule, the bytes arrive whole and in order, and in
// the end both sides forget the stream at a point after which nothing comes.
func FuzzTwo(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(bytes.Repeat([]byte{0, 8, 2, 4, 6, 1, 9, 3, 5, 7, 200, 131}, 9))
	f.Fuzz(func(t *testing.T, script []byte) {
		var x, y side
		x.init(t, &y)
		y.init(t, &x)
		for _, op := range script {
			s := &x
			if op&1 == 1 {
				s = &y
			}
			s.step(op >> 1)
		}
		// Then everything that can happen does, until nothing changes.
		for range 64 {
			for _, s := range []*side{&x, &y} {
				for op := range byte(8) {
					if op != opReset {
						s.step(op)
					}
				}
			}
		}
		for _, s := range []*side{&x, &y} {
			if !s.over {
				t.Fatalf("a stream is not over: send %+v, receive %+v", s.s.send, s.s.receive)
			}
			if !s.other.s.WasReset() && !s.s.WasReset() && !bytes.Equal(s.got, s.other.wrote) {
				t.Fatalf("received %q, sent %q", s.got, s.other.wrote)
			}
			if !bytes.HasPrefix(s.other.wrote, s.got) {
				t.Fatalf("received %q, sent %q", s.got, s.other.wrote)
			}
		}
	})
}

// side is a stream with its application and the frames that are under way to
// it.
type side struct {
	t        *testing.T
	s        *Stream
	other    *side
	incoming []any
	wrote    []byte
	got      []byte
	reset    bool // a RESET waits to be sent
	over     bool // the stream was forgotten
}

const opReset = 7

func (d *side) init(t *testing.T, other *side) {
	d.t, d.other = t, other
	d.s = New(7, 40, 40)
}

func (d *side) send(f any) { d.other.incoming = append(d.other.incoming, f) }

func (d *side) settle() {
	if d.s.Over() && !d.reset {
		d.over = true
	}
}

func (d *side) step(op byte) {
	if !d.over {
		d.work(op)
	}
	if op%8 != 6 || len(d.incoming) == 0 {
		return
	}
	f := d.incoming[0]
	d.incoming = d.incoming[1:]
	if d.over {
		d.t.Fatalf("%+v came for a stream that was forgotten", f)
	}
	var err error
	switch f := f.(type) {
	case wire.Data:
		var deliver bool
		if deliver, err = d.s.Receive(f); deliver {
			d.s.Queue(f.Data)
		}
	case wire.Fin:
		_, err = d.s.ReceiveFin(f)
	case wire.Ack:
		err = d.s.ReceiveAck(f)
	case wire.Reset:
		d.reset = d.s.ReceiveReset() || d.reset
	}
	if err != nil {
		d.t.Fatalf("%+v: %v", f, err)
	}
	d.settle()
}

func (d *side) work(op byte) {
	switch op % 8 {
	case 0: // the application writes
		b := GetBlock()
		n := min(d.s.Room(), 17, 300-len(d.wrote))
		for i := range n {
			b[wire.DataOverhead+i] = byte(len(d.wrote) + i)
		}
		d.wrote = append(d.wrote, b[wire.DataOverhead:wire.DataOverhead+n]...)
		if !d.s.Append(b, n) {
			PutBlock(b)
		}
		if len(d.wrote) == 300 {
			d.s.Finish()
		}
	case 1: // and ends
		d.s.Finish()
	case 2: // the carrier takes a frame
		if b := d.s.Next(); b != nil {
			frame := parse(d.t, bytes.Clone(b))
			d.s.Wrote()
			d.send(frame)
		}
	case 3: // the application reads
		if b := d.s.Front(); len(b) > 0 {
			b = b[:min(len(b), 11)]
			d.got = append(d.got, b...)
			d.s.WroteQueued(len(b), time.Time{}, 0)
		}
	case 4: // and is told of the end
		if d.s.Ended() {
			d.s.ToldEnd()
		}
	case 5: // the carrier takes what is urgent
		if d.s.AckOwed() {
			d.send(d.s.Ack())
		}
		if d.reset {
			d.reset = false
			d.send(wire.Reset{})
		}
		d.settle()
	case opReset:
		d.reset = d.s.Reset() || d.reset
	}
}
