package carrier_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// sink is a Handler that passes on the frames it gets.
type sink chan frame

type frame struct {
	header wire.FrameHeader
	body   []byte
}

func (s sink) Frame(h wire.FrameHeader, body []byte) error {
	s <- frame{h, bytes.Clone(body)}
	return nil
}

func (sink) Hello(wire.TunnelHello) error { return nil }
func (sink) Silent(bool)                  {}

// script is a Source that sends the frames it was given, one a turn.
type script struct {
	mu     sync.Mutex
	frames [][]byte
	urgent []byte
	busy   bool
}

func (s *script) Urgent(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b = append(b, s.urgent...)
	s.urgent = nil
	return b
}

func (s *script) Next() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		panic("Next before Wrote")
	}
	if len(s.frames) == 0 {
		return nil, false
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	s.busy = true
	return f, len(s.frames) > 0
}

func (s *script) Wrote() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

// one is a carrier under test and what its Run returns.
type one struct {
	carrier.Conn
	got   sink
	ended chan error
}

func (o *one) run(ctx context.Context, running *sync.WaitGroup) {
	o.got, o.ended = make(sink, 10000), make(chan error, 1)
	running.Go(func() { o.ended <- o.Run(ctx, o.got) })
}

// newCarriers runs two carriers of a kind against each other over loopback.
func newCarriers(t *testing.T, kind wire.CarrierKind) (client, server *one) {
	t.Helper()
	client, server = &one{}, &one{}
	client.Conn, server.Conn = carriertest.Pair(t, kind)
	client.SendHello(wire.TunnelHello{})
	server.SendHello(wire.TunnelHello{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	client.run(ctx, &running)
	server.run(ctx, &running)
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return client, server
}

// eachKind runs a test over every kind of carrier.
func eachKind(t *testing.T, test func(t *testing.T, kind wire.CarrierKind)) {
	for _, kind := range carriertest.Kinds {
		t.Run(kind.String(), func(t *testing.T) { test(t, kind) })
	}
}

// open is the first frame of a stream.
func open(stream uint32) []byte {
	return wire.AppendFrame(nil, stream, wire.Open{Kind: wire.OpenStream})
}

func data(stream uint32, n int) []byte {
	return wire.AppendFrame(nil, stream, wire.Data{Epoch: 1, Data: make([]byte, n)})
}

// wantEnd waits for the end of a carrier's Run.
func (o *one) wantEnd(t *testing.T, side, want string) {
	t.Helper()
	err := <-o.ended
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: Run: %v, want %q", side, err, want)
	}
}

// While a bulk stream has more than the socket takes, a small write of another
// stream arrives before its backlog.
func TestSmallWriteOvertakesTheBacklog(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		const frames = 1000
		bulk := &script{frames: [][]byte{open(1)}}
		big := data(1, wire.MaxData)
		for range frames {
			bulk.frames = append(bulk.frames, big)
		}
		client.Lane(1, bulk).Ready()
		// Some of it has arrived, so the rest is under way.
		<-server.got
		<-server.got
		client.Lane(3, &script{frames: [][]byte{open(3), data(3, 1)}}).Write()
		before := 1
		for (<-server.got).header.Stream != 3 {
			before++
		}
		// What fits into the sockets' buffers is ahead; the rest must not be.
		if before > frames/2 {
			t.Errorf("%d of %d bulk frames came before the small one", before, frames)
		}
	})
}

// Streams in bulk get on alike.
func TestBulkStreamsShareTheCarrier(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		const streams, frames = 4, 200
		var lanes []carrier.Lane
		for i := range streams {
			number := uint32(2*i + 1)
			src := &script{frames: [][]byte{open(number)}}
			for range frames {
				src.frames = append(src.frames, data(number, 16<<10))
			}
			lanes = append(lanes, client.Lane(number, src))
		}
		for _, l := range lanes {
			l.Ready()
		}
		seen := make(map[uint32]int)
		for {
			f := <-server.got
			if seen[f.header.Stream]++; seen[f.header.Stream] == frames+1 {
				break
			}
		}
		// When the first is through, the others are most of the way.
		for number, n := range seen {
			if n < frames/2 {
				t.Errorf("stream %d got %d of %d frames through while another got all", number, n, frames)
			}
		}
	})
}

func TestFramesOfEverySizeArriveAsSent(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		want := [][]byte{open(1)}
		for _, n := range []int{0, 1, carrier.SmallFrame - 1, carrier.SmallFrame, carrier.SmallFrame + 1, carrier.SmallData, carrier.SmallData + 1, carrier.ScratchLen, 16384, 65535, 65536, 65537, wire.MaxFrame} {
			b := make([]byte, wire.FrameHeaderLen, wire.FrameHeaderLen+n)
			wire.FrameHeader{Type: wire.FrameData, Length: n, Stream: 1}.PutTo(b)
			want = append(want, append(b, bytes.Repeat([]byte{byte(n)}, n)...))
		}
		client.Lane(1, &script{frames: want}).Write()
		for _, w := range want {
			got := <-server.got
			if !bytes.Equal(got.body, w[wire.FrameHeaderLen:]) {
				t.Errorf("a frame of %d bytes arrived with a body of %d", len(w), len(got.body))
			}
		}
	})
}

// Datagrams keep their boundaries and sizes, however small the packets are.
func TestDatagramsOfEverySizeArriveWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		for _, n := range []int{0, 1, 1100, 1200, 1400, 1452, 1453, 2048, 9000, wire.MaxDatagram} {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(i>>8 + i*7)
			}
			// One may be lost: a datagram is sent once or not at all.
			var got frame
			for tries := 0; got.header.Type == 0; tries++ {
				if tries == 10 {
					t.Fatalf("a datagram of %d bytes was lost 10 times", n)
				}
				if !client.Datagram(5, body) {
					t.Fatalf("a datagram of %d bytes was not taken", n)
				}
				select {
				case got = <-server.got:
				case <-time.After(time.Second):
				}
			}
			if got.header.Type != wire.FrameDatagram || got.header.Stream != 5 || got.header.Length != n || !bytes.Equal(got.body, body) {
				t.Errorf("a datagram of %d bytes arrived as %v of stream %d with %d", n, got.header.Type, got.header.Stream, len(got.body))
			}
		}
	})
}

// A lane that was closed asks its Source for nothing more, and the stream may
// come back to the carrier by another.
func TestStreamLeavesAndComesBack(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		for epoch := uint32(2); epoch < 6; epoch++ {
			first := wire.AppendFrame(nil, 1, wire.Resume{Epoch: epoch})
			src := &script{frames: [][]byte{first, data(1, 10)}}
			lane := client.Lane(1, src)
			lane.Write()
			if got := <-server.got; got.header.Type != wire.FrameResume {
				t.Fatalf("epoch %d: first came %v", epoch, got.header.Type)
			}
			back := &script{urgent: wire.AppendFrame(nil, 1, wire.Resume{Epoch: epoch})}
			answer := server.Lane(1, back)
			answer.Urgent()
			if got := <-client.got; got.header.Type != wire.FrameResume {
				t.Fatalf("epoch %d: the answer is %v", epoch, got.header.Type)
			}
			<-server.got // the data
			lane.Close()
			answer.Close()
			src.add(data(1, 20))
			lane.Ready()
			lane.Urgent()
			lane.Write()
			// Whatever is sent now comes behind what the lane would have sent.
			if _, err := client.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := src.waiting(); left != 1 {
				t.Errorf("epoch %d: %d frames wait behind the closed lane, want 1", epoch, left)
			}
		}
	})
}

// A stream that left the carrier on one side and came back is answered, though the
// other side has never left: what told it so was lost on another carrier.
func TestStreamComesBackBeforeItWasMissed(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		back := &script{}
		var answer carrier.Lane
		for epoch := uint32(2); epoch < 20; epoch++ {
			lane := client.Lane(1, &script{frames: [][]byte{wire.AppendFrame(nil, 1, wire.Resume{Epoch: epoch})}})
			lane.Write()
			if got := <-server.got; got.header.Type != wire.FrameResume {
				t.Fatalf("epoch %d: first came %v", epoch, got.header.Type)
			}
			if answer == nil {
				answer = server.Lane(1, back)
			}
			back.add(wire.AppendFrame(nil, 1, wire.Resume{Epoch: epoch}))
			answer.Ready()
			for {
				got := <-client.got
				m, err := wire.ParseResume(got.body)
				if err != nil {
					t.Fatalf("epoch %d: the answer is %v: %v", epoch, got.header.Type, err)
				}
				if m.Epoch == epoch {
					break
				}
			}
			// What is under way when the stream leaves is stopped, or late.
			for range epoch % 4 {
				back.add(wire.AppendFrame(nil, 1, wire.Resume{Epoch: 1000}))
				answer.Ready()
			}
			lane.Close()
		}
		answer.Close()
	})
}

func (s *script) add(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, frame)
}

func (s *script) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames)
}

func TestPingMeasuresTheRoundTrip(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		took, err := client.Ping(t.Context())
		if err != nil || took <= 0 || client.RTT() <= 0 || client.WindowRTT() <= 0 {
			t.Errorf("Ping: %v, %v; round trip %v, for windows %v", took, err, client.RTT(), client.WindowRTT())
		}
		server.Abort(errors.New("enough"))
		for err == nil {
			_, err = client.Ping(t.Context())
		}
	})
}

func TestCloseDeliversTheLastFrame(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		last := wire.AppendFrame(nil, 0, wire.TunnelClose{Reason: wire.ReasonShutdown})
		client.Close(last)
		if got := <-server.got; got.header.Type != wire.FrameClose {
			t.Errorf("the last frame is a %v", got.header.Type)
		}
		client.wantEnd(t, "the side that closed", "")
		server.wantEnd(t, "the other side", "the peer closed")
	})
}

// What a side has sent before it closes arrives.
func TestCloseComesAfterWhatWasSent(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		const frames = 20
		for i := range frames {
			client.Send(wire.AppendFrame(nil, uint32(i+1), wire.Reset{Reason: wire.ReasonShutdown}))
		}
		client.Close(wire.AppendFrame(nil, 0, wire.TunnelClose{}))
		for i := range frames {
			if got := <-server.got; got.header.Stream != uint32(i+1) {
				t.Fatalf("frame %d is for stream %d", i, got.header.Stream)
			}
		}
		if got := <-server.got; got.header.Type != wire.FrameClose {
			t.Errorf("the last frame is a %v", got.header.Type)
		}
	})
}

// What may be left is left where much waits, long before the carrier dies of it.
func TestTryLeavesWhatFindsTooMuchWaiting(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := carriertest.Pair(t, kind) // nobody runs, so everything waits
		server.Abort(errors.New("enough"))
		frames := make([]byte, 10<<10)
		taken := 0
		for client.Try(frames) {
			if taken++; taken > 1000 {
				t.Fatal("10 MB wait")
			}
		}
		if taken == 0 {
			t.Error("nothing was taken")
		}
		for range 2 * taken {
			client.Send(frames)
		}
		if err := client.Run(t.Context(), sink(nil)); err == nil || !strings.Contains(err.Error(), "does not read") {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAbortEndsBothSides(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := newCarriers(t, kind)
		lane := client.Lane(1, &script{frames: [][]byte{open(1)}})
		lane.Write()
		<-server.got
		client.Abort(errors.New("enough of it"))
		client.wantEnd(t, "the side that aborted", "enough of it")
		if err := <-server.ended; err == nil {
			t.Error("the other side ended well")
		}
		// Nobody is there any more, and nothing waits for it.
		lane.Write()
		lane.Close()
		client.Send(data(1, 1))
		client.Close(nil)
	})
}

func TestHandlersErrorEndsTheCarrier(t *testing.T) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		client, server := &one{}, &one{}
		client.Conn, server.Conn = carriertest.Pair(t, kind)
		client.SendHello(wire.TunnelHello{})
		server.SendHello(wire.TunnelHello{})
		broken := errors.New("broken")
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		client.run(ctx, &running)
		client.Lane(1, &script{frames: [][]byte{open(1)}}).Ready()
		if err := server.Run(ctx, failing{err: broken}); !errors.Is(err, broken) {
			t.Errorf("Run: %v, want the Handler's error", err)
		}
		if err := <-client.ended; err == nil {
			t.Error("the other side ended well")
		}
	})
}

type failing struct {
	sink
	err error
}

func (f failing) Frame(wire.FrameHeader, []byte) error { return f.err }
