package carrier_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// party is one side of a carrier that carries a stream: it answers DATA with ACK
// as a tunnel does, and sends DATA while it has any.
type party struct {
	carrier.Conn
	lane   carrier.Lane
	number uint32
	frames func(wire.FrameHeader, []byte) // is told of each, if not nil
	ended  chan error
	died   time.Time

	mu       sync.Mutex
	opened   bool
	stalled  bool // the application does not read: no ACK
	owes     bool // an ACK
	left     int  // frames that it wants to send
	size     int  // bytes in each
	received int  // DATA frames
	silent   bool
	told     []time.Time // of every change of silent
}

func (p *party) Hello(wire.TunnelHello) error { return nil }

func (p *party) Frame(h wire.FrameHeader, body []byte) error {
	if p.frames != nil {
		p.frames(h, body)
	}
	if h.Type == wire.FrameOpen {
		p.lane = p.Lane(h.Stream, p)
		return nil
	}
	if h.Type != wire.FrameData {
		return nil
	}
	p.mu.Lock()
	p.received++
	p.owes = !p.stalled
	p.mu.Unlock()
	if !p.stalled {
		p.lane.Urgent()
	}
	return nil
}

func (p *party) Silent(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
	p.told = append(p.told, time.Now())
}

func (p *party) Urgent(b []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owes {
		p.owes = false
		b = wire.AppendFrame(b, p.number, wire.Ack{Epoch: 1, Acked: uint64(p.received), Limit: 1 << 40})
	}
	return b
}

func (p *party) Next() ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.opened {
		p.opened = true
		return open(p.number), p.left > 0
	}
	if p.left == 0 {
		return nil, false
	}
	p.left--
	return data(p.number, p.size), p.left > 0
}

func (p *party) Wrote() {}

// say has the party send n more frames.
func (p *party) say(n, size int) {
	p.mu.Lock()
	p.left, p.size = p.left+n, size
	p.mu.Unlock()
	p.lane.Ready()
}

func (p *party) state() (received int, silent bool, told []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.received, p.silent, p.told
}

// talk joins two parties over a network and runs them; the client has opened a
// stream.
func talk(t *testing.T, n *carriertest.Network, kind wire.CarrierKind) (client, server *party) {
	t.Helper()
	client, server = &party{number: 1, ended: make(chan error, 1)}, &party{number: 1, opened: true, ended: make(chan error, 1)}
	client.Conn, server.Conn = n.Join(t, kind)
	client.lane = client.Lane(1, client)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, p := range []*party{client, server} {
		running.Go(func() {
			err := p.Run(ctx, p)
			p.died = time.Now()
			p.ended <- err
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	client.lane.Ready()
	pass(time.Second)
	return client, server
}

// pass lets the time of the bubble pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// every runs f at each interval until d has passed.
func every(interval, d time.Duration, f func()) {
	for end := time.Now().Add(d); time.Now().Before(end); pass(interval) {
		f()
	}
}

func overEachKind(t *testing.T, test func(t *testing.T, kind wire.CarrierKind)) {
	eachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		synctest.Test(t, func(t *testing.T) { test(t, kind) })
	})
}

// A path that breaks while there is something to say is noticed within two
// seconds, and the carrier goes on if the path comes back.
func TestSilenceIsNoticedWithinTwoSeconds(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, server := talk(t, n, kind)
		every(100*time.Millisecond, 10*time.Second, func() { client.say(1, 100) })
		if _, _, told := client.state(); len(told) > 0 {
			t.Fatal("a path that is whole was taken for broken")
		}
		n.SetCut(true, true)
		broke := time.Now()
		every(100*time.Millisecond, 5*time.Second, func() { client.say(1, 100) })
		_, silent, told := client.state()
		if !silent || told[0].Sub(broke) > 2*time.Second {
			t.Fatalf("silent %v, told %v after the break", silent, since(told, broke))
		}
		n.SetCut(false, false)
		healed := time.Now()
		every(100*time.Millisecond, 10*time.Second, func() { client.say(1, 100) })
		_, silent, told = client.state()
		if silent || len(told) != 2 || told[1].Sub(healed) > 8*time.Second {
			t.Fatalf("silent %v, told %v after the path came back", silent, since(told, healed))
		}
		if received, _, _ := server.state(); received < 240 {
			t.Errorf("%d of 250 frames came", received)
		}
		if len(client.ended) > 0 || len(server.ended) > 0 {
			t.Error("the carrier ended")
		}
	})
}

func since(told []time.Time, from time.Time) (list []time.Duration) {
	for _, at := range told {
		list = append(list, at.Sub(from))
	}
	return list
}

// Where there is a doubt, an idle carrier says within a moment whether it lives.
func TestDoubtIsAnsweredOrNoticed(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, _ := talk(t, n, kind)
		pass(time.Minute)
		client.Doubt()
		pass(time.Second)
		if _, _, told := client.state(); len(told) > 0 {
			t.Fatal("a path that is whole was taken for broken")
		}
		pass(time.Minute)
		n.SetCut(true, true)
		broke := time.Now()
		client.Doubt()
		pass(time.Second)
		if _, silent, told := client.state(); !silent || told[0].Sub(broke) > 300*time.Millisecond {
			t.Errorf("silent %v, told %v after the break", silent, since(told, broke))
		}
	})
}

// An idle carrier that is asked whether its peer is there finds out at once, not
// when its turn to ask has come; and it knows since when nobody answers.
func TestQuestionOnAnIdleCarrierIsNotForgotten(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, _ := talk(t, n, kind)
		pass(time.Minute)
		n.SetCut(true, true)
		client.Measure(time.Now())
		asked := time.Now()
		pass(2 * time.Second)
		if _, silent, told := client.state(); !silent || client.Quiet() != asked {
			t.Errorf("silent %v, told %v after the question, quiet since %v", silent, since(told, asked), client.Quiet().Sub(asked))
		}
	})
}

// A path that has broken in one direction only is noticed though the other still
// brings frames.
func TestSilenceOfOneDirectionIsNoticed(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, server := talk(t, n, kind)
		chat := func() {
			client.say(1, 100)
			server.say(1, 100)
		}
		every(100*time.Millisecond, 3*time.Second, chat)
		n.SetCut(true, false)
		broke := time.Now()
		every(100*time.Millisecond, 4*time.Second, chat)
		for _, side := range []struct {
			name string
			p    *party
		}{{"who is not heard", client}, {"who does not hear", server}} {
			if _, silent, told := side.p.state(); !silent || told[0].Sub(broke) > 3*time.Second {
				t.Errorf("%s: silent %v, told %v after the break", side.name, silent, since(told, broke))
			}
		}
	})
}

func TestCarrierDiesAfterTwentySecondsOfSilence(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, server := talk(t, n, kind)
		n.SetCut(true, true)
		broke := time.Now()
		client.say(1, 100)
		server.say(1, 100)
		for _, p := range []*party{client, server} {
			if err := <-p.ended; err == nil {
				t.Error("Run ended well")
			}
			if took := p.died.Sub(broke); took < 20*time.Second || took > 22*time.Second {
				t.Errorf("it died after %v", took)
			}
		}
	})
}

// A peer that proves itself and then says nothing is given up.
func TestRunWaitsTenSecondsForHello(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		for _, side := range []string{"client", "server"} {
			one, other := carriertest.NewNetwork(20*time.Millisecond, 0).Join(t, kind)
			if side == "server" {
				one, other = other, one
			}
			began := time.Now()
			err := one.Run(t.Context(), sink(nil))
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no HELLO within 10s") || took > 11*time.Second {
				t.Errorf("%s: Run: %v after %v", side, err, took)
			}
			other.Abort(err)
		}
	})
}

// An application that does not read is no silent peer.
func TestStalledApplicationIsNotSilent(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, server := talk(t, n, kind)
		server.stalled = true
		client.say(100, 10000)
		pass(2 * time.Minute)
		for _, p := range []*party{client, server} {
			if _, _, told := p.state(); len(told) > 0 || len(p.ended) > 0 {
				t.Errorf("told of silence %d times; ended: %v", len(told), len(p.ended) > 0)
			}
		}
	})
}

// On 1 Mbit/s with a queue of two seconds, answers take long, and are no less
// sure for that.
func TestSlowLinkWithFullQueueIsNotSilent(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		n := carriertest.NewNetwork(25*time.Millisecond, 125_000)
		client, server := talk(t, n, kind)
		every(200*time.Millisecond, time.Minute, func() {
			client.say(1, 32<<10) // more than the link takes
			server.say(1, 32<<10)
		})
		for _, p := range []*party{client, server} {
			received, _, told := p.state()
			if len(told) > 0 || len(p.ended) > 0 {
				t.Errorf("told of silence at %v; ended: %v", told, len(p.ended) > 0)
			}
			if most := 60 * 125_000 / (32 << 10); received < most/2 {
				t.Errorf("%d frames came of the %d that the link takes", received, most)
			}
			if rtt := p.RTT(); rtt < 300*time.Millisecond {
				t.Errorf("the queue was not full: round trip %v", rtt)
			}
		}
	})
}

// A carrier that carries nothing asks as rarely as its configuration says.
func TestIdleCarrierIsQuiet(t *testing.T) {
	for _, test := range []struct {
		kind wire.CarrierKind
		most int // packets in 10 minutes, both ways: PING, PONG and QUIC's own ACKs
	}{{wire.CarrierTCP, 2 * 3}, {wire.CarrierQUIC, 40 * 4}} {
		t.Run(test.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := carriertest.NewNetwork(20*time.Millisecond, 0)
				client, server := talk(t, n, test.kind)
				client.say(1, 100)
				pass(5 * time.Second)
				before := n.Pieces()
				pass(10 * time.Minute)
				if got := n.Pieces() - before; got == 0 || got > test.most {
					t.Errorf("%d packets in 10 minutes, want some, at most %d", got, test.most)
				}
				// And the path is found broken by who has something to say.
				n.SetCut(true, true)
				broke := time.Now()
				server.say(1, 100)
				pass(3 * time.Second)
				if _, silent, told := server.state(); !silent || told[0].Sub(broke) > 2*time.Second {
					t.Errorf("silent %v, told %v after the break", silent, since(told, broke))
				}
			})
		})
	}
}

// F17: a peer that is gone while nobody has anything to say is found out within half a
// minute over UDP, whichever side it was.
func TestIdlePeerIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, server := talk(t, n, wire.CarrierQUIC)
		pass(time.Minute)
		n.SetCut(true, true)
		broke := time.Now()
		pass(30 * time.Second)
		for name, p := range map[string]*party{"client": client, "server": server} {
			if _, silent, told := p.state(); !silent {
				t.Errorf("the %s has not noticed; told %v after the break", name, since(told, broke))
			}
		}
	})
}

// A path that has come to lose packets of full size still passes PING: it is
// silent all the same, because what matters does not pass.
func TestLostFullPacketsAreSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := carriertest.NewNetwork(20*time.Millisecond, 0)
		client, _ := talk(t, n, wire.CarrierQUIC)
		every(10*time.Millisecond, 3*time.Second, func() { client.say(1, 50000) })
		n.SetMost(1180)
		broke := time.Now()
		client.say(1, 1400)
		pass(4 * time.Second)
		if _, silent, told := client.state(); !silent || told[0].Sub(broke) > 3*time.Second {
			t.Errorf("silent %v, told %v after the break", silent, since(told, broke))
		}
	})
}

// Loss costs time and nothing else: streams stay whole and in order, and the
// peer is not taken for silent.
func TestStreamsSurviveLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := carriertest.NewNetwork(20*time.Millisecond, 1_250_000)
		client, server := talk(t, n, wire.CarrierQUIC)
		n.SetLoss(20)
		const frames = 200
		client.say(frames, 20000)
		server.say(frames, 20000)
		pass(2 * time.Minute)
		for _, p := range []*party{client, server} {
			if received, _, told := p.state(); received != frames || len(told) > 0 {
				t.Errorf("%d of %d frames came; told of silence at %v", received, frames, told)
			}
		}
		if s := client.Stats(); s.Lost == 0 || s.Packets < s.Lost {
			t.Errorf("Stats: %d of %d packets were lost", s.Lost, s.Packets)
		}
	})
}

// Datagrams wait for what is on the link, and not for the streams behind it.
func TestDatagramsDoNotWaitBehindBulk(t *testing.T) {
	overEachKind(t, func(t *testing.T, kind wire.CarrierKind) {
		const rate = 1_250_000
		n := carriertest.NewNetwork(20*time.Millisecond, rate)
		client, server := talk(t, n, kind)
		l := &listener{party: server}
		server.frames = l.heard
		client.say(10000, 32<<10) // 4 minutes of it
		pass(5 * time.Second)
		const calls = 200
		for range calls {
			client.Datagram(9, []byte(time.Now().Format(time.RFC3339Nano)))
			pass(20 * time.Millisecond)
		}
		pass(time.Second)
		if len(l.delays) < calls*9/10 {
			t.Errorf("%d of %d datagrams came", len(l.delays), calls)
		}
		slices.Sort(l.delays)
		// The queue of the link is full of the bulk, and that is all.
		most := carriertest.QueueLen*time.Second/rate + 200*time.Millisecond
		if at := l.delays[len(l.delays)*9/10]; at > most {
			t.Errorf("nine of ten datagrams took up to %v, want %v", at, most)
		}
	})
}

// listener measures how long datagrams took that say when they left.
type listener struct {
	*party
	delays []time.Duration
}

func (l *listener) heard(h wire.FrameHeader, body []byte) {
	if h.Type == wire.FrameDatagram {
		left, err := time.Parse(time.RFC3339Nano, string(body))
		if err == nil {
			l.mu.Lock()
			l.delays = append(l.delays, time.Since(left))
			l.mu.Unlock()
		}
	}
}
