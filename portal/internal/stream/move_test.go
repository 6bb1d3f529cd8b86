package stream

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/netport/netport/proto/wire"
)

// move moves the stream, whose peer has received so much.
func (p *peer) move(received uint64) {
	p.t.Helper()
	p.s.Leave().Return()
	m := p.s.Move()
	if ok, err := p.s.Moved(wire.Resume{Epoch: m.Epoch, Received: received}); !ok || err != nil {
		p.t.Fatalf("RESUME with %d: counts %v, %v", received, ok, err)
	}
}

func TestWhatThePeerHasNotReceivedIsSentAgain(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.app("one ")
	p.app("two ")
	p.app("three")
	p.s.Finish()
	for p.next() != nil {
	}
	p.ack(2, 100) // of what it received, the far application has taken two bytes
	p.move(4)
	for _, want := range []wire.Frame{
		wire.Data{Epoch: 2, Offset: 4, Data: []byte("two ")}, wire.Data{Epoch: 2, Offset: 8, Data: []byte("three")}, wire.Fin{Epoch: 2, Offset: 13},
	} {
		got := p.next()
		if got == nil || !bytes.Equal(got.AppendTo(nil), want.AppendTo(nil)) {
			t.Fatalf("after RESUME from 4: %+v, want %+v", got, want)
		}
	}
	p.wantNothing()
	// A FIN that was received is not sent again.
	p.move(14)
	p.wantNothing()
	if err := p.s.ReceiveAck(wire.Ack{Epoch: 3, Acked: 14, Limit: 114}); err != nil || p.s.Kept() != 0 {
		t.Errorf("ACK of everything: %v, %d bytes are kept", err, p.s.Kept())
	}
}

func TestNothingIsSentUntilTheMoveIsAnswered(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.data(0, "0123456789")
	p.write(10)
	p.app("mine")
	p.s.Leave().Return()
	if got, want := p.s.Move(), (wire.Resume{Epoch: 2, Received: 10}); got != want {
		t.Fatalf("RESUME: %+v, want %+v", got, want)
	}
	if p.s.Pending() || p.s.AckOwed() || !p.s.Moving() {
		t.Errorf("before the answer: pending %v, ACK owed %v, moving %v", p.s.Pending(), p.s.AckOwed(), p.s.Moving())
	}
	p.wantNothing()
	// The answer to an earlier RESUME does not count.
	p.s.Move()
	if ok, err := p.s.Moved(wire.Resume{Epoch: 2}); ok || err != nil {
		t.Errorf("late answer: counts %v, %v", ok, err)
	}
	if ok, err := p.s.Moved(wire.Resume{Epoch: 3}); !ok || err != nil {
		t.Errorf("answer: counts %v, %v", ok, err)
	}
	if !p.s.AckDue() {
		t.Error("no ACK is due after the move")
	}
	if got, want := p.s.Ack(), (wire.Ack{Epoch: 3, Acked: 10, Limit: 110}); got != want {
		t.Errorf("ACK: %+v, want %+v", got, want)
	}
}

// An exit that still dials has nothing to acknowledge: its ACK would say that
// the target is connected.
func TestMoveBeforeTheStreamWasAcceptedDoesNotAcceptIt(t *testing.T) {
	s := New(7, 100, 100)
	if _, ok, err := s.Follow(wire.Resume{Epoch: 2}); !ok || err != nil {
		t.Fatalf("RESUME: counts %v, %v", ok, err)
	}
	if s.AckOwed() {
		t.Error("an ACK is owed by a stream that was not accepted")
	}
	s.Accept(100)
	if !s.AckOwed() {
		t.Error("no ACK is owed after the stream was accepted")
	}
}

// While a carrier that was left still reads a frame, the stream sends the same
// bytes on the next one.
func TestFrameOnLoanStaysAsItIs(t *testing.T) {
	for _, size := range []int{10, 50000} {
		p := newPeer(t, 1<<20, 100)
		b := GetBlock()
		for i := range b {
			b[i] = 'm'
		}
		if !p.s.Append(b, size) {
			PutBlock(b)
		}
		kept := p.s.Kept()
		frame := p.s.Next()
		was := bytes.Clone(frame)
		loan := p.s.Leave()
		if loan.Cost() == 0 || p.s.Kept() != kept {
			t.Errorf("%d bytes: the loan costs %d, %d are kept, %d before", size, loan.Cost(), p.s.Kept(), kept)
		}
		p.move(0)
		d, ok := p.next().(wire.Data)
		if !ok || d.Epoch != 2 || d.Offset != 0 || !bytes.Equal(d.Data, bytes.Repeat([]byte("m"), size)) {
			t.Errorf("%d bytes: sent again is %+v", size, d)
		}
		if err := p.s.ReceiveAck(wire.Ack{Epoch: 2, Acked: uint64(size), Limit: 1 << 20}); err != nil || p.s.Kept() != 0 {
			t.Errorf("%d bytes: %v, %d are kept at the end", size, err, p.s.Kept())
		}
		for range 8 { // whoever takes blocks now must not get that one
			clear(GetBlock()[:])
		}
		if !bytes.Equal(frame, was) {
			t.Errorf("%d bytes: the frame has changed", size)
		}
		loan.Return()
	}
}

func TestFrameOnLoanOutlivesAReset(t *testing.T) {
	p := newPeer(t, 1<<20, 100)
	b := GetBlock()
	p.s.Append(b, 50000)
	p.s.Next()
	p.s.Reset()
	loan := p.s.Leave()
	if loan.Cost() == 0 || p.s.Kept() != 0 {
		t.Errorf("the loan costs %d, %d bytes are kept", loan.Cost(), p.s.Kept())
	}
	if !p.s.ResetAgain() {
		t.Error("the RESET is not said again on another carrier")
	}
	p.s.ReceiveReset()
	if p.s.ResetAgain() {
		t.Error("the RESET is said again after the peer's")
	}
}

// closed returns a stream whose halves have both ended, but for the peer's ACK.
func closed(t *testing.T) *peer {
	p := newPeer(t, 100, 100)
	p.app("last")
	p.s.Finish()
	for p.next() != nil {
	}
	p.fin(0)
	p.s.ToldEnd()
	return p
}

func TestForgottenStreamEndedWellOnlyIfEverythingWasDone(t *testing.T) {
	p := closed(t)
	if p.s.Forgotten() {
		t.Error("clean, though the peer was not told that its end was taken")
	}
	p.s.Ack()
	p.s.Leave().Return()
	p.s.Move()
	if !p.s.Forgotten() || !p.s.Over() || p.s.Kept() != 0 || p.s.Acked() != 4 {
		t.Errorf("not clean, or not over: over %v, kept %d, acked %d", p.s.Over(), p.s.Kept(), p.s.Acked())
	}
	p = newPeer(t, 100, 100)
	p.fin(0)
	p.s.ToldEnd()
	p.s.Ack()
	if p.s.Forgotten() {
		t.Error("clean, though this half has not ended")
	}
	p = closed(t)
	p.s.Ack()
	p.s.Reset()
	if p.s.Forgotten() {
		t.Error("clean after a reset")
	}
}

// The ACK of the FIN may be what was lost with the carrier.
func TestAckOfTheEndIsSaidAgain(t *testing.T) {
	p := closed(t)
	p.s.Ack()
	if _, ok, err := p.s.Follow(wire.Resume{Epoch: 2, Received: 5}); !ok || err != nil {
		t.Fatalf("RESUME: counts %v, %v", ok, err)
	}
	if !p.s.AckOwed() || p.s.Over() {
		t.Errorf("after the move: ACK owed %v, over %v", p.s.AckOwed(), p.s.Over())
	}
	if got := p.s.Ack(); got != (wire.Ack{Epoch: 2, Acked: 1, Limit: 100}) {
		t.Errorf("ACK: %+v", got)
	}
}

func TestBrokenMovesAreErrors(t *testing.T) {
	follow := func(epoch uint32, received uint64) func(*Stream) error {
		return func(s *Stream) error {
			s.Leave().Return()
			_, _, err := s.Follow(wire.Resume{Epoch: epoch, Received: received})
			return err
		}
	}
	move := func(s *Stream) error {
		s.Leave().Return()
		s.Move()
		return nil
	}
	moved := func(epoch uint32, received uint64) func(*Stream) error {
		return func(s *Stream) error {
			_, err := s.Moved(wire.Resume{Epoch: epoch, Received: received})
			return err
		}
	}
	ack := func(epoch uint32, acked uint64) func(*Stream) error {
		return func(s *Stream) error { return s.ReceiveAck(wire.Ack{Epoch: epoch, Acked: acked, Limit: 100}) }
	}
	data := func(epoch uint32) func(*Stream) error {
		return func(s *Stream) error {
			_, err := s.Receive(wire.Data{Epoch: epoch, Data: []byte("x")})
			return err
		}
	}
	reset := func(s *Stream) error { s.ReceiveReset(); return nil }
	for _, test := range []struct {
		name  string
		steps []func(*Stream) error // all but the last are allowed
		want  string
	}{
		{"more than was sent", []func(*Stream) error{follow(2, 9)}, "only 8 were sent"},
		{"a FIN that was not sent", []func(*Stream) error{follow(2, 8), follow(3, 9)}, "only 8 were sent"},
		{"below what was acknowledged", []func(*Stream) error{ack(1, 5), follow(2, 4)}, "went back"},
		{"below the RESUME before", []func(*Stream) error{follow(2, 8), follow(3, 4)}, "went back"},
		{"in the middle of a frame", []func(*Stream) error{follow(2, 5)}, "middle"},
		{"an epoch twice", []func(*Stream) error{follow(2, 4), follow(2, 4)}, "twice"},
		{"after RESET", []func(*Stream) error{reset, follow(2, 8)}, "after RESET"},
		{"an answer to nothing", []func(*Stream) error{moved(2, 4)}, "not asked for"},
		{"an answer of an epoch to come", []func(*Stream) error{move, moved(3, 4)}, "not asked for"},
		{"an answer twice", []func(*Stream) error{move, moved(2, 4), moved(2, 4)}, "not asked for"},
		{"DATA before the answer", []func(*Stream) error{move, data(2)}, "before its RESUME"},
		{"ACK before the answer", []func(*Stream) error{move, ack(2, 4)}, "before its RESUME"},
		{"DATA of an epoch to come", []func(*Stream) error{data(2)}, "before its RESUME"},
	} {
		p := newPeer(t, 100, 100)
		p.app("sent")
		p.app("more")
		p.next()
		p.next()
		for i, step := range test.steps {
			err := step(p.s)
			if last := i == len(test.steps)-1; last != errors.Is(err, ErrProtocol) || last && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: step %d: %v", test.name, i, err)
			}
		}
	}
}

func TestOlderEpochsAreIgnored(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.app("x")
	p.next()
	p.move(0)
	if deliver, err := p.s.Receive(wire.Data{Epoch: 1, Offset: 50, Data: []byte("x")}); deliver || err != nil {
		t.Errorf("DATA of an older epoch: deliver %v, %v", deliver, err)
	}
	if ok, err := p.s.ReceiveFin(wire.Fin{Epoch: 1, Offset: 50}); ok || err != nil {
		t.Errorf("FIN of an older epoch: counts %v, %v", ok, err)
	}
	if err := p.s.ReceiveAck(wire.Ack{Epoch: 1, Acked: 1, Limit: 500}); err != nil || p.s.Acked() != 0 || p.s.Room() != 99 {
		t.Errorf("ACK of an older epoch: %v, acked %d, room %d", err, p.s.Acked(), p.s.Room())
	}
	if _, ok, err := p.s.Follow(wire.Resume{Epoch: 1}); ok || err != nil {
		t.Errorf("RESUME of an older epoch: counts %v, %v", ok, err)
	}
}

// A nudge says nothing that the peer could not have been told before.
func TestNudgeSaysNothingNew(t *testing.T) {
	p := newPeer(t, 100, 100)
	p.data(0, "0123456789")
	p.write(10)
	if got, want := p.s.Nudge(), (wire.Ack{Epoch: 1, Limit: 100}); got != want {
		t.Errorf("nudge: %+v, want %+v", got, want)
	}
	if !p.s.AckOwed() {
		t.Error("no ACK is owed after a nudge")
	}
	p.s.Ack()
	if got := p.s.Nudge().Acked; got != 10 {
		t.Errorf("nudge after an ACK: %d, want 10", got)
	}
}
