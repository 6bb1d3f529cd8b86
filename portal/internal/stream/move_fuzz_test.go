package stream

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// The model: two streams that are joined by roads. A road delivers in order, in
// each direction, but when it pleases beside the others; it may die at any
// frame, and each end notices that when it pleases. A frame that a road has
// taken may stay in its hands for as long as it likes.

// road is one carrier.
type road struct {
	dead bool
	to   [2][]any // under way to either end
}

// mover is a stream with its application, and what an owner does for it.
type mover struct {
	t      *testing.T
	me     int // 0: the opener
	s      *Stream
	other  *mover
	at     *road
	left   map[*road]bool
	hands  []held // frames that roads have not let go
	resume *wire.Resume
	reset  *wire.Reset
	why    wire.Reset // of our own reset
	size   int        // how much the application writes
	wrote  []byte
	got    []byte
	told   bool
	broken bool // ended with a reset
	over   bool // forgotten
}

// held is a frame in the hands of a road.
type held struct {
	road  *road
	frame []byte
	was   []byte // what was in it
	loan  *Loan  // if the stream has left the road since
}

func newMovers(t *testing.T, first *road, size [2]byte) [2]*mover {
	var m [2]*mover
	for i := range m {
		m[i] = &mover{t: t, me: i, s: New(7, 40, 40), at: first, left: make(map[*road]bool), size: int(size[i])}
	}
	m[0].other, m[1].other = m[1], m[0]
	m[1].s.Accept(40)
	return m
}

func (d *mover) send(r *road, f any) {
	if !r.dead {
		to := &r.to[1-d.me]
		*to = append(*to, f)
	}
}

// leave takes the stream off its road.
func (d *mover) leave() {
	if d.at == nil {
		return
	}
	loan := d.s.Leave()
	for i := range d.hands {
		if d.hands[i].road == d.at && d.hands[i].loan == nil {
			d.hands[i].loan = &loan
			loan = Loan{}
		}
	}
	if loan.Cost() != 0 {
		d.t.Fatal("a loan of a frame that no road holds")
	}
	d.left[d.at] = true
	d.at = nil
	d.resume, d.reset = nil, nil // a RESET is said again
}

// move moves the opener's stream to r.
func (d *mover) move(r *road) {
	if d.over || d.at == r || r.dead {
		return
	}
	d.leave()
	if d.s.Over() {
		d.over = true // the answer to a RESET is said again when it is asked for
		return
	}
	if d.s.ResetAgain() {
		d.send(r, d.why)
		return
	}
	d.at = r
	m := d.s.Move()
	d.resume = &m
}

// nudge asks the opener to come to r, or sends a RESET again.
func (d *mover) nudge(r *road) {
	if d.over || d.at == r || r.dead {
		return
	}
	if d.at == nil && d.s.Over() {
		d.over = true
		return
	}
	if d.s.ResetAgain() {
		d.send(r, d.why)
		return
	}
	d.send(r, d.s.Nudge())
}

func (d *mover) end(broken bool) {
	d.broken = d.broken || broken
}

func (d *mover) settle() {
	if d.s.Over() && d.reset == nil && !d.over {
		d.over = true
	}
}

// busy reports whether d's road writes a frame of the stream.
func (d *mover) busy() bool {
	return slices.ContainsFunc(d.hands, func(h held) bool { return h.road == d.at })
}

// take has d's road take the next frame.
func (d *mover) take() {
	if d.over || d.at == nil || d.resume != nil || d.busy() {
		return
	}
	if b := d.s.Next(); b != nil {
		// It may arrive, and be acknowledged, before the road lets go of it.
		d.send(d.at, parse(d.t, bytes.Clone(b)))
		d.hands = append(d.hands, held{road: d.at, frame: b, was: bytes.Clone(b)})
	}
}

// done has a road let go of a frame.
func (d *mover) done(i int) {
	if len(d.hands) == 0 {
		return
	}
	i %= len(d.hands)
	h := d.hands[i]
	d.hands = append(d.hands[:i], d.hands[i+1:]...)
	if !bytes.Equal(h.frame, h.was) {
		d.t.Fatalf("a frame was changed in a carrier's hands: %x, was %x", h.frame, h.was)
	}
	if h.loan != nil {
		h.loan.Return()
	} else {
		d.s.Wrote()
	}
}

func (d *mover) urgent() {
	if d.over || d.at == nil || d.busy() {
		return
	}
	if d.resume != nil {
		d.send(d.at, *d.resume)
		d.resume = nil
	}
	if d.s.AckOwed() {
		d.send(d.at, d.s.Ack())
	}
	if d.reset != nil {
		d.send(d.at, *d.reset)
		d.reset = nil
	}
	d.settle()
}

func (d *mover) app(op byte) {
	if d.over || d.s.WasReset() {
		return
	}
	switch op {
	case 0:
		b := GetBlock()
		n := min(d.s.Room(), 17, d.size-len(d.wrote))
		for i := range n {
			b[wire.DataOverhead+i] = byte((len(d.wrote) + i) * (3 + d.me))
		}
		d.wrote = append(d.wrote, b[wire.DataOverhead:wire.DataOverhead+n]...)
		if !d.s.Append(b, n) {
			PutBlock(b)
		}
		if len(d.wrote) == d.size {
			d.s.Finish()
		}
	case 1:
		if b := d.s.Front(); len(b) > 0 {
			b = b[:min(len(b), 11)]
			d.got = append(d.got, b...)
			d.s.WroteQueued(len(b), time.Time{}, 0)
		}
	case 2:
		if d.s.Ended() {
			d.s.ToldEnd()
			d.told = true
		}
	}
}

// breaks resets the stream here.
func (d *mover) breaks() {
	if d.over || d.s.WasReset() {
		return
	}
	d.why = wire.Reset{Reason: wire.ReasonTargetReset}
	d.end(true)
	if d.s.Reset() {
		d.reset = &d.why
	}
}

// receive takes the next frame that a road brings.
func (d *mover) receive(r *road) {
	if len(r.to[d.me]) == 0 {
		return
	}
	f := r.to[d.me][0]
	r.to[d.me] = r.to[d.me][1:]
	if d.over {
		d.forgotten(r, f)
		return
	}
	var err error
	here := d.at == r // what comes on another road is late, or asks for a move
	switch f := f.(type) {
	case wire.Data:
		deliver := false
		if here {
			deliver, err = d.s.Receive(f)
		}
		if deliver {
			d.s.Queue(f.Data)
		}
	case wire.Fin:
		if here {
			_, err = d.s.ReceiveFin(f)
		}
	case wire.Ack:
		switch {
		case here:
			err = d.s.ReceiveAck(f)
		case d.me == 0 && f.Epoch == d.s.Epoch():
			d.move(r)
			return
		}
	case wire.Resume:
		err = d.resumed(r, f)
	case wire.Reset:
		if d.at != r {
			d.leave() // what was under way there is late now
		}
		if f == (wire.Reset{}) && !d.s.WasReset() {
			if d.s.Forgotten() {
				break
			}
			d.end(true)
		}
		if f != (wire.Reset{}) {
			d.end(true)
		}
		if d.s.ReceiveReset() {
			d.reset = &wire.Reset{}
			if d.at == nil {
				d.send(r, *d.reset)
				d.reset = nil
			}
		}
	}
	if err != nil {
		d.t.Fatalf("side %d: %T %+v: %v", d.me, f, f, err)
	}
	d.settle()
}

func (d *mover) resumed(r *road, m wire.Resume) error {
	if d.me == 0 {
		_, err := d.s.Moved(m)
		return err
	}
	if m.Epoch < d.s.Epoch() {
		return nil
	}
	d.leave()
	d.at = r
	if d.s.ResetAgain() {
		d.reset = &d.why
	}
	answer, ok, err := d.s.Follow(m)
	if ok && d.reset == nil {
		d.resume = &answer
	}
	return err
}

// forgotten answers a frame of a stream that is over here.
func (d *mover) forgotten(r *road, f any) {
	switch f := f.(type) {
	case wire.Reset:
		if f != (wire.Reset{}) {
			d.send(r, wire.Reset{})
		}
		return
	case wire.Resume, wire.Ack:
		d.send(r, wire.Reset{})
		return
	}
	if !d.left[r] {
		d.t.Fatalf("side %d: %T %+v came for a stream that was forgotten, on a road it had not left", d.me, f, f)
	}
}

// run plays a script, then lets everything happen that can on a road that
// lasts.
func runMoves(t *testing.T, script []byte) {
	if len(script) < 2 {
		return
	}
	roads := []*road{{}}
	m := newMovers(t, roads[0], [2]byte(script))
	script = script[2:]
	resets := false
	for len(script) >= 2 {
		op, arg := script[0], int(script[1])
		script = script[2:]
		d := m[op&1]
		r := roads[arg%len(roads)]
		switch op >> 1 % 16 {
		case 0, 1, 2:
			d.app(op >> 1 % 16)
		case 3, 4:
			d.take()
		case 5, 6:
			d.done(arg)
		case 7:
			d.urgent()
		case 8, 9, 10:
			d.receive(r)
		case 11: // a road dies, with some of what is under way
			r.dead = true
			for i := range r.to {
				r.to[i] = r.to[i][:min(len(r.to[i]), arg>>(2*i)&3)]
			}
		case 12: // and one end notices
			if r.dead && d.at == r {
				d.leave()
			}
		case 13:
			if len(roads) < 12 {
				roads = append(roads, &road{})
			}
		case 14: // a better road, or any after a loss
			if d.me == 0 {
				d.move(roads[len(roads)-1])
			} else {
				d.nudge(roads[len(roads)-1])
			}
		case 15:
			if arg == 99 {
				resets = true
				d.breaks()
			}
		}
	}
	last := &road{}
	for _, r := range roads {
		r.dead = true
	}
	roads = append(roads, last)
	for range 200 {
		m[0].move(last)
		if m[1].at == nil || m[1].at.dead {
			m[1].leave()
			m[1].nudge(last)
		}
		for _, d := range m {
			for op := range byte(3) {
				d.app(op)
			}
			d.urgent()
			d.take()
			for range 3 {
				d.done(0)
			}
			for _, r := range roads {
				d.receive(r)
			}
		}
	}
	for i, d := range m {
		if !d.over {
			t.Fatalf("side %d is not over: %+v, at %v", i, d.s, d.at)
		}
		if len(d.hands) > 0 || len(d.s.send.kept) > 0 && !d.s.reset || len(d.s.receive.queue) > 0 {
			t.Fatalf("side %d still holds: hands %d, kept %d, queue %d", i, len(d.hands), len(d.s.send.kept), len(d.s.receive.queue))
		}
		if !bytes.HasPrefix(d.other.wrote, d.got) {
			t.Fatalf("side %d received %x, sent was %x", i, d.got, d.other.wrote)
		}
		if d.told && !bytes.Equal(d.got, d.other.wrote) {
			t.Fatalf("side %d was told of the end after %d of %d bytes", i, len(d.got), len(d.other.wrote))
		}
		if !d.broken && !d.told {
			t.Fatalf("side %d ended well, but was not told of the end", i)
		}
		if !resets && d.broken {
			t.Fatalf("side %d ended with a reset, though nobody reset it", i)
		}
	}
}

// FuzzMoves moves a stream between carriers that die, stall and come late,
// while its applications work. Whatever the schedule, every byte arrives once
// and in order, both sides agree on the end, and a frame in a carrier's hands
// is not touched.
func FuzzMoves(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomMoves(seed, 400, true))
	}
	f.Fuzz(runMoves)
}

func randomMoves(seed uint64, n int, resets bool) []byte {
	rnd := rand.New(rand.NewPCG(seed, 4))
	b := make([]byte, 2*n)
	b[0], b[1] = byte(rnd.IntN(256)>>rnd.IntN(8)), byte(rnd.IntN(256)>>rnd.IntN(8))
	for i := 2; i < len(b); i += 2 {
		b[i] = byte(rnd.IntN(32))
		b[i+1] = byte(rnd.IntN(256))
		if op := b[i] >> 1; op >= 11 && rnd.IntN(4) > 0 {
			b[i] = byte(rnd.IntN(22)) // most of the time the streams just work
		}
		if !resets && b[i]>>1 == 15 {
			b[i+1] = 0
		}
	}
	return b
}

func TestRandomMovesLoseNothing(t *testing.T) {
	for seed := range uint64(3000) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			runMoves(t, randomMoves(seed, 100+int(seed%900), seed%3 == 0))
		})
	}
}
