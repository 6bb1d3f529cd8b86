package stream

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
)

// peer is a scripted far side: it turns a stream's frames into what they mean
// and feeds the stream with what the test says.
type peer struct {
	t *testing.T
	s *Stream
}

func newPeer(t *testing.T, limit, window uint64) *peer {
	return &peer{t: t, s: New(7, limit, window)}
}

// app appends what the application wrote.
func (p *peer) app(data string) {
	p.t.Helper()
	b := GetBlock()
	n := copy(b[wire.DataOverhead:], data)
	if n > p.s.Room() {
		p.t.Fatalf("the test writes %d bytes, there is room for %d", n, p.s.Room())
	}
	if !p.s.Append(b, n) {
		PutBlock(b)
	}
}

// next returns the next frame, which the carrier has written.
func (p *peer) next() wire.Frame {
	p.t.Helper()
	b := p.s.Next()
	if b == nil {
		return nil
	}
	defer p.s.Wrote()
	return parse(p.t, bytes.Clone(b))
}

func parse(t testing.TB, b []byte) wire.Frame {
	t.Helper()
	h, err := wire.ParseFrameHeader(b)
	if err != nil || h.Length != len(b)-wire.FrameHeaderLen || h.Stream != 7 {
		t.Fatalf("header %+v of a frame of %d bytes: %v", h, len(b), err)
	}
	var f wire.Frame
	switch body := b[wire.FrameHeaderLen:]; h.Type {
	case wire.FrameData:
		f, err = wire.ParseData(body)
	case wire.FrameFin:
		f, err = wire.ParseFin(body)
	default:
		t.Fatalf("a stream made a %v frame", h.Type)
	}
	if err != nil {
		t.Fatalf("%v: %v", h.Type, err)
	}
	return f
}

func (p *peer) wantData(offset uint64, data string) {
	p.t.Helper()
	d, ok := p.next().(wire.Data)
	if !ok || d.Epoch != 1 || d.Offset != offset || string(d.Data) != data {
		p.t.Fatalf("next frame: %+v, want DATA %q at %d", d, data, offset)
	}
}

func (p *peer) wantNothing() {
	p.t.Helper()
	if f := p.next(); f != nil {
		p.t.Fatalf("next frame: %+v, want none", f)
	}
}

func (p *peer) ack(acked, limit uint64) {
	p.t.Helper()
	if err := p.s.ReceiveAck(wire.Ack{Epoch: 1, Acked: acked, Limit: limit}); err != nil {
		p.t.Fatalf("ACK of %d: %v", acked, err)
	}
}

func (p *peer) data(offset uint64, data string) {
	p.t.Helper()
	deliver, err := p.s.Receive(wire.Data{Epoch: 1, Offset: offset, Data: []byte(data)})
	if err != nil {
		p.t.Fatalf("DATA at %d: %v", offset, err)
	}
	if deliver {
		p.s.Queue([]byte(data))
	}
}

// write writes up to n bytes of the queue to the application.
func (p *peer) write(n int) string {
	var got []byte
	for n > 0 {
		b := p.s.Front()
		if len(b) == 0 {
			break
		}
		b = b[:min(n, len(b))]
		got = append(got, b...)
		n -= len(b)
		p.s.WroteQueued(len(b), time.Time{}, 0)
	}
	return string(got)
}

func (p *peer) fin(offset uint64) {
	p.t.Helper()
	if _, err := p.s.ReceiveFin(wire.Fin{Epoch: 1, Offset: offset}); err != nil {
		p.t.Fatalf("FIN at %d: %v", offset, err)
	}
}

func TestBytesAreSentOnceInOrderAndKeptUntilAcknowledged(t *testing.T) {
	p := newPeer(t, 100, InitialWindow)
	p.app("hello ")
	p.app("world")
	p.wantData(0, "hello ")
	p.wantData(6, "world")
	p.wantNothing()
	if p.s.Kept() == 0 {
		t.Error("nothing is kept, though nothing was acknowledged")
	}
	p.ack(6, 100)
	p.ack(11, 100)
	if got := p.s.Kept(); got != 0 {
		t.Errorf("%d bytes of memory are kept after all was acknowledged", got)
	}
	if got := p.s.Acked(); got != 11 {
		t.Errorf("acked: %d, want 11", got)
	}
}

func TestRoomIsWhatThePeerTakes(t *testing.T) {
	p := newPeer(t, 8, InitialWindow)
	p.app("12345678")
	if got := p.s.Room(); got != 0 {
		t.Errorf("room at the limit: %d, want 0", got)
	}
	p.wantData(0, "12345678")
	p.ack(8, 20)
	if got := p.s.Room(); got != 12 {
		t.Errorf("room after the limit rose to 20: %d, want 12", got)
	}
	p.ack(8, wire.MaxOffset)
	if got := p.s.Room(); got != MaxWindow {
		t.Errorf("room with a boundless limit: %d, want %d", got, MaxWindow)
	}
	p.s.Finish()
	if got := p.s.Room(); got != 0 {
		t.Errorf("room after the end: %d, want 0", got)
	}
}

func TestTinyWritesRunOutOfRoomBeforeMemory(t *testing.T) {
	p := newPeer(t, 1<<20, InitialWindow)
	n := 0
	for p.s.Room() > 0 {
		p.app("x")
		n++
	}
	if n != maxKept {
		t.Errorf("%d segments of a byte were kept, want %d", n, maxKept)
	}
	for range n {
		p.next()
	}
	p.ack(uint64(n), 1<<20)
	if p.s.Room() == 0 {
		t.Error("no room after all was acknowledged")
	}
}

// An ACK may overtake the carrier's word that it is done with the buffer. The
// buffer must not be given to another stream before.
func TestBufferInTheCarriersHandsIsNotReleased(t *testing.T) {
	for _, test := range []struct {
		name string
		meet func(p *peer)
	}{
		{"acknowledged", func(p *peer) { p.ack(50000, 1<<20) }},
		{"reset", func(p *peer) { p.s.Reset() }},
	} {
		p := newPeer(t, 1<<20, InitialWindow)
		b := GetBlock()
		for i := range b {
			b[i] = 'm'
		}
		if !p.s.Append(b, 50000) {
			t.Fatal("a segment of 50000 bytes was copied")
		}
		frame := p.s.Next()
		test.meet(p)
		// Whoever takes blocks now must not get this one.
		for range 8 {
			other := GetBlock()
			clear(other[:])
		}
		if got := bytes.Count(frame, []byte("m")); got != 50000 {
			t.Errorf("%s: %d of 50000 bytes are left in a frame that is being written", test.name, got)
		}
		p.s.Wrote()
		if got := p.s.Kept(); got != 0 {
			t.Errorf("%s: %d bytes are kept after the carrier was done", test.name, got)
		}
	}
}

func TestReceivedBytesAreAcknowledgedWhenWrittenOut(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.data(0, "0123456789")
	p.data(10, "abcdef")
	if p.s.AckOwed() {
		t.Error("an ACK is owed for bytes that the application does not have")
	}
	if got := p.write(12); got != "0123456789ab" {
		t.Fatalf("written out: %q", got)
	}
	if !p.s.AckOwed() || p.s.AckDue() {
		t.Errorf("12 of 100 bytes written out: ACK owed %v, due %v; want true, false", p.s.AckOwed(), p.s.AckDue())
	}
	if got, want := p.s.Ack(), (wire.Ack{Epoch: 1, Acked: 12, Limit: 112}); got != want {
		t.Errorf("ACK: %+v, want %+v", got, want)
	}
	if p.s.AckOwed() {
		t.Error("an ACK is owed right after one")
	}
	p.data(16, "0123456789abcdefghijklmno")
	if p.write(4 + 25); !p.s.AckDue() {
		t.Error("no ACK is due after a quarter of the window")
	}
}

func TestManySmallFramesMakeAnAckDue(t *testing.T) {
	p := newPeer(t, 100, InitialWindow)
	for i := range uint64(ackFrames) {
		if p.s.AckDue() {
			t.Fatalf("an ACK is due after %d bytes", i)
		}
		p.data(i, "x")
		p.write(1)
	}
	if !p.s.AckDue() {
		t.Errorf("no ACK is due after %d frames", ackFrames)
	}
}

// FIN takes a number of its own, so both sides know when all is over.
func TestBothHalvesEndAndTheStreamIsOver(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.app("request")
	p.s.Finish()
	p.wantData(0, "request")
	if f, ok := p.next().(wire.Fin); !ok || f.Offset != 7 {
		t.Fatalf("after the last byte: %+v, want FIN at 7", f)
	}
	p.wantNothing()
	p.ack(7, 100)
	// The other half goes on.
	p.data(0, "answer")
	if got := p.write(6); got != "answer" {
		t.Fatalf("written out: %q", got)
	}
	if p.s.Ended() {
		t.Error("ended before FIN")
	}
	p.fin(6)
	if !p.s.Ended() {
		t.Error("not ended after FIN, with all bytes written out")
	}
	p.s.ToldEnd()
	if got := p.s.Ack(); got.Acked != 7 {
		t.Errorf("ACK of the FIN at 6: %d, want 7", got.Acked)
	}
	if p.s.Over() {
		t.Error("over, though the peer has not acknowledged the FIN")
	}
	p.ack(8, 100)
	if !p.s.Over() {
		t.Error("not over after both FINs were acknowledged")
	}
	if p.s.AckOwed() {
		t.Error("an ACK is owed after that of the FIN")
	}
}

func TestEndWaitsForTheBytesBeforeIt(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.data(0, "rest")
	p.fin(4)
	if p.s.Ended() {
		t.Error("ended while bytes are in the queue")
	}
	p.write(4)
	if !p.s.Ended() {
		t.Error("not ended after the last byte")
	}
}

func TestResetForgetsTheBytesAndIsOverWhenItWentBothWays(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.app("lost")
	p.data(0, "lost too")
	if !p.s.Reset() {
		t.Error("the first Reset sends no RESET")
	}
	if p.s.Reset() {
		t.Error("the second Reset sends another")
	}
	if p.s.Held() != 0 || p.s.Front() != nil || p.s.Room() != 0 || p.s.AckOwed() {
		t.Errorf("after a reset: held %d, queue %q, room %d, ACK owed %v", p.s.Held(), p.s.Front(), p.s.Room(), p.s.AckOwed())
	}
	p.wantNothing()
	// What was under way still comes, and is ignored.
	if deliver, err := p.s.Receive(wire.Data{Epoch: 1, Offset: 8, Data: []byte("late")}); deliver || err != nil {
		t.Errorf("DATA after our RESET: deliver %v, %v", deliver, err)
	}
	if p.s.Over() {
		t.Error("over before the peer answered")
	}
	if p.s.ReceiveReset() {
		t.Error("the answer is answered")
	}
	if !p.s.Over() {
		t.Error("not over after RESET went both ways")
	}
}

func TestPeersResetIsAnswered(t *testing.T) {
	p := newPeer(t, 100, 100)
	if !p.s.ReceiveReset() {
		t.Error("the peer's RESET is not answered")
	}
	if !p.s.Over() {
		t.Error("not over after RESET was received, to be answered")
	}
	if _, err := p.s.Receive(wire.Data{Epoch: 1, Data: []byte("x")}); !errors.Is(err, ErrProtocol) {
		t.Errorf("DATA after the peer's RESET: %v", err)
	}
}

func TestBrokenRulesAreErrors(t *testing.T) {
	data := func(offset uint64, n int) func(*Stream) error {
		return func(s *Stream) error {
			_, err := s.Receive(wire.Data{Epoch: 1, Offset: offset, Data: make([]byte, n)})
			return err
		}
	}
	fin := func(offset uint64) func(*Stream) error {
		return func(s *Stream) error {
			_, err := s.ReceiveFin(wire.Fin{Epoch: 1, Offset: offset})
			return err
		}
	}
	ack := func(acked, limit uint64) func(*Stream) error {
		return func(s *Stream) error { return s.ReceiveAck(wire.Ack{Epoch: 1, Acked: acked, Limit: limit}) }
	}
	for _, test := range []struct {
		name  string
		steps []func(*Stream) error // all but the last are allowed
	}{
		{"DATA beyond the limit", []func(*Stream) error{data(0, 100), data(100, 1)}},
		{"DATA that crosses the limit", []func(*Stream) error{data(0, 60), data(60, 41)}},
		{"DATA with a gap", []func(*Stream) error{data(0, 10), data(11, 1)}},
		{"DATA twice", []func(*Stream) error{data(0, 10), data(0, 10)}},
		{"DATA that overlaps", []func(*Stream) error{data(0, 10), data(9, 10)}},
		{"DATA after FIN", []func(*Stream) error{data(0, 10), fin(10), data(10, 1)}},
		{"FIN twice", []func(*Stream) error{fin(0), fin(0)}},
		{"FIN before its bytes", []func(*Stream) error{data(0, 10), fin(11)}},
		{"FIN below what came", []func(*Stream) error{data(0, 10), fin(9)}},
		{"ACK of what was never sent", []func(*Stream) error{ack(0, 200), ack(5, 200)}},
		{"ACK of a FIN that was never sent", []func(*Stream) error{ack(4, 200), ack(5, 200)}},
		{"limit that falls", []func(*Stream) error{ack(0, 200), ack(0, 199)}},
		{"ACK that falls", []func(*Stream) error{ack(4, 200), ack(3, 200)}},
	} {
		p := newPeer(t, 100, 100)
		p.app("sent")
		p.next()
		for i, step := range test.steps {
			err := step(p.s)
			if last := i == len(test.steps)-1; last != errors.Is(err, ErrProtocol) {
				t.Errorf("%s: step %d: %v", test.name, i, err)
			}
		}
	}
}

func TestWindowDoublesOnlyWhenItHoldsThePeerBack(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for _, test := range []struct {
		name string
		rate int // bytes in a round trip
		want bool
	}{
		{"a window in a round trip", InitialWindow, true},
		{"a window in four round trips", InitialWindow / 4, false},
	} {
		s := New(7, 0, InitialWindow)
		now := time.Unix(1000, 0)
		small := false
		for i := range 12 {
			n := test.rate / 4
			if _, err := s.Receive(wire.Data{Epoch: 1, Offset: uint64(i * n), Data: make([]byte, n)}); err != nil {
				t.Fatal(err)
			}
			s.WroteOut(n, now, rtt)
			if s.AckDue() {
				s.Ack()
			}
			small = small || s.WindowSmall()
			now = now.Add(rtt / 4)
		}
		if small != test.want {
			t.Errorf("%s: window small: %v, want %v", test.name, small, test.want)
		}
	}
}

// The measured round trip is the same, but on the second way it is made of the
// stream's own queue: the processors take so much and no more. On the third, what has
// piled up comes at once every now and then.
func TestWindowGrowsAsLongAsThatMakesTheStreamFaster(t *testing.T) {
	const measured, n = 10 * time.Millisecond, 64 << 10
	limited := func(rtt time.Duration) func(int, uint64) time.Duration {
		return func(_ int, window uint64) time.Duration { return n * rtt / time.Duration(window) }
	}
	for _, test := range []struct {
		name  string
		takes func(at int, window uint64) time.Duration // a chunk of n bytes
		want  uint64
	}{
		{"a way of 10 ms", limited(measured), MaxWindow},
		{"processors that take 400 MB/s", func(int, uint64) time.Duration { return n * time.Second / 400e6 }, longWindow},
		{"a way that stands still", func(at int, window uint64) time.Duration {
			each := limited(measured)(at, window)
			switch phase := at / n % 16; {
			case phase == 8:
				return 8 * each
			case phase > 8:
				return 0
			}
			return each
		}, MaxWindow},
	} {
		s := New(7, 0, InitialWindow)
		now := time.Unix(1000, 0)
		for at := 0; at < 128<<20; at += n {
			if _, err := s.Receive(wire.Data{Epoch: 1, Offset: uint64(at), Data: make([]byte, n)}); err != nil {
				t.Fatal(err)
			}
			s.WroteOut(n, now, measured)
			if s.AckDue() {
				s.Ack()
			}
			if s.WindowSmall() {
				s.SetWindow(2 * s.Window())
			}
			now = now.Add(test.takes(at, s.Window()))
		}
		if got := s.Window(); got != test.want {
			t.Errorf("%s: a window of %d, want %d", test.name, got, test.want)
		}
	}
}

func TestWindowShrinksAsBytesAreWrittenOut(t *testing.T) {
	s := New(7, 0, InitialWindow)
	s.SetWindow(0)
	if got := s.Window(); got != SmallWindow {
		t.Fatalf("smallest window: %d, want %d", got, SmallWindow)
	}
	n := InitialWindow - SmallWindow
	if _, err := s.Receive(wire.Data{Epoch: 1, Data: make([]byte, n)}); err != nil {
		t.Fatal(err)
	}
	s.WroteOut(n, time.Time{}, 0)
	if got := s.Ack(); got.Limit != InitialWindow {
		t.Errorf("limit after a shrink: %d, want %d as promised", got.Limit, InitialWindow)
	}
	if got := s.Held(); got != SmallWindow {
		t.Errorf("held: %d, want %d", got, SmallWindow)
	}
}
