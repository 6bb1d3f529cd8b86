package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/carrier/carriertest"
	"github.com/netport/netport/proto/wire"
)

// onDirect returns how many streams of a tunnel are on direct carriers, and how many on
// others, and whether flows take a direct one.
func onDirect(tun *Tunnel) (direct, relayed int, flows bool) {
	for _, c := range tun.Stats().Each {
		if c.Direct {
			direct += c.Streams
		} else {
			relayed += c.Streams
		}
		flows = flows || c.Flows && c.Direct
	}
	return direct, relayed, flows
}

// stint is a transfer both ways that lasts until it is stopped.
type stint struct {
	running  sync.WaitGroup
	over     atomic.Bool
	received [2]atomic.Int64
}

// endless begins a stint between two applications, of which every byte is checked.
func endless(t *testing.T, a, b net.Conn) *stint {
	e := &stint{}
	for i, way := range [][2]net.Conn{{a, b}, {b, a}} {
		seed := [32]byte{byte(i)}
		e.running.Go(func() {
			source, chunk := rand.NewChaCha8(seed), make([]byte, 32<<10)
			for !e.over.Load() {
				source.Read(chunk)
				if _, err := way[0].Write(chunk); err != nil {
					t.Errorf("an application could not write: %v", err)
					return
				}
			}
			way[0].(*net.TCPConn).CloseWrite()
		})
		e.running.Go(func() {
			source, got, want := rand.NewChaCha8(seed), make([]byte, 32<<10), make([]byte, 32<<10)
			for {
				_, err := io.ReadFull(way[1], got)
				switch {
				case err == io.EOF && e.over.Load():
					return
				case err != nil:
					t.Errorf("after %d bytes: %v", e.received[i].Load(), err)
					return
				}
				if source.Read(want); !bytes.Equal(got, want) {
					t.Errorf("what came after %d bytes is not what was sent", e.received[i].Load())
					return
				}
				e.received[i].Add(int64(len(got)))
			}
		})
	}
	return e
}

// goesOn waits until a good deal has arrived at both.
func (e *stint) goesOn(t *testing.T) {
	t.Helper()
	for i := range e.received {
		was := e.received[i].Load()
		waitFor(t, "the transfer to go on", func() bool { return e.received[i].Load() > was+256<<10 })
	}
}

// stop ends the stint when all has arrived.
func (e *stint) stop() {
	e.over.Store(true)
	e.running.Wait()
}

// A direct path appears, dies and appears again, under a transfer both ways and
// datagrams beside it: everything moves there and back, every byte arrives once, and no
// datagram twice (F54).
func TestTransferSurvivesADirectPathThatComesAndGoes(t *testing.T) {
	const switches = 10
	at := make(targets, 1)
	udp := udpEcho(t)
	var exit handler = func(ctx context.Context, open wire.Open) (net.Conn, error) {
		if open.Kind == wire.OpenFlow {
			return dialTo(udp)(ctx, open)
		}
		return at.Open(ctx, From{}, open)
	}
	p := newPair(t, exit, alone)
	app, done := open(t, p.client, benchGrant)
	e := endless(t, app, <-at)
	count := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	f, in := openFlow(t, p.client, count(0))
	back := make(map[uint32]bool)
	sent := uint32(1)
	bounce := func() { // until one comes back that was sent on what is taken now
		t.Helper()
		first := sent
		waitFor(t, "a datagram to come back", func() bool {
			f.Send(count(sent))
			sent++
			for {
				select {
				case b := <-in.got:
					n := binary.BigEndian.Uint32(b)
					if back[n] {
						t.Errorf("datagram %d came twice", n)
					}
					back[n] = true
					if n >= first {
						return true
					}
				default:
					return false
				}
			}
		})
	}
	var direct *road
	for i := range switches {
		e.goesOn(t)
		if i%2 == 0 {
			direct = p.connectDirect(overTCP(t))
		} else if i%4 == 1 {
			direct.a.Close()
		} else {
			direct.server.Abort(errors.New("the test breaks it"))
		}
		want := i%2 == 0
		for _, tun := range []*Tunnel{p.client, p.server} {
			waitFor(t, "everything to move", func() bool {
				direct, relayed, flows := onDirect(tun)
				return flows == want && (direct == 1) == want && (relayed == 1) == !want
			})
		}
		bounce()
	}
	e.stop()
	f.Close(wire.ReasonIdle)
	p.wantWell(done)
}

// ticker sends a byte each way of a stream now and then, in a bubble, and tells the
// longest time in which none came back.
type ticker struct {
	done chan outcome
	mu   sync.Mutex
	last time.Time
	gap  time.Duration
}

func (k *ticker) longest() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	gap := max(k.gap, time.Since(k.last))
	k.gap, k.last = 0, time.Now()
	return gap
}

// tick runs a ticker over a stream of the client until stop is called.
func (p *pair) tick(every time.Duration) (k *ticker, stop func()) {
	app, other := net.Pipe()
	k = &ticker{done: openWith(p.client, benchGrant, other), last: time.Now()}
	var running sync.WaitGroup
	running.Go(func() {
		for sent := byte(0); ; sent++ {
			if _, err := app.Write([]byte{sent}); err != nil {
				return
			}
			time.Sleep(every)
		}
	})
	running.Go(func() {
		var b [1]byte
		for want := byte(0); ; want++ {
			if _, err := io.ReadFull(app, b[:]); err != nil {
				return
			}
			if b[0] != want {
				p.t.Errorf("byte %d came back where %d was to", b[0], want)
			}
			k.mu.Lock()
			k.gap, k.last = max(k.gap, time.Since(k.last)), time.Now()
			k.mu.Unlock()
		}
	})
	return k, func() {
		p.client.CutGrant(benchGrant, wire.ReasonGrantRemoved)
		running.Wait()
		synctest.Wait()
	}
}

// echoes is a Handler whose targets send back what they get.
var echoes handler = func(context.Context, wire.Open) (net.Conn, error) {
	x, y := net.Pipe()
	go func() {
		io.Copy(y, y)
		y.Close()
	}()
	return x, nil
}

// A direct path is taken at once; where it turns out to take clearly longer it is left
// for the relay's, and stays in reserve.
func TestSlowDirectPathIsLeftForTheRelays(t *testing.T) {
	for _, tt := range []struct {
		relay, direct time.Duration
		left          bool
	}{{10 * time.Millisecond, 40 * time.Millisecond, true}, {40 * time.Millisecond, 10 * time.Millisecond, false}, {10 * time.Millisecond, 12 * time.Millisecond, false}} {
		synctest.Test(t, func(t *testing.T) {
			far := func(rtt time.Duration) func() (net.Conn, net.Conn) {
				return func() (net.Conn, net.Conn) { return carriertest.Far(rtt / 2) }
			}
			p := newPairOver(t, echoes, far(tt.relay), alone)
			k, stop := p.tick(time.Second)
			time.Sleep(time.Second)
			p.connectDirect(far(tt.direct))
			time.Sleep(time.Second)
			if direct, relayed, flows := onDirect(p.client); direct != 1 || relayed != 0 || !flows {
				t.Errorf("%v and %v: %d streams on the direct path a second after it came, %d by the relay, flows: %v", tt.relay, tt.direct, direct, relayed, flows)
			}
			turns, was := 0, true
			for range 2 * 60 {
				time.Sleep(time.Second)
				direct, _, _ := onDirect(p.client)
				if now := direct == 1; now != was {
					turns, was = turns+1, now
				}
			}
			if want := map[bool]int{true: 1, false: 0}[tt.left]; turns != want || was == tt.left {
				t.Errorf("%v and %v: %d turns in two minutes, on the direct path now: %v", tt.relay, tt.direct, turns, was)
			}
			if gap := k.longest(); gap > 2*time.Second {
				t.Errorf("nothing came back for %v", gap)
			}
			if n := p.client.Stats().Carriers; n != 2 {
				t.Errorf("%d carriers, want both kept", n)
			}
			stop()
			p.stopAndDrain()
		})
	}
}

// Paths are measured while they carry something, and not while a connection is only open.
func TestQuietPathsAreNotMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := func() (net.Conn, net.Conn) { return carriertest.Far(time.Millisecond) }
		p := newPairOver(t, echoes, near, alone)
		_, stop := p.tick(24 * time.Hour)
		p.connectDirect(near)
		time.Sleep(time.Minute)
		carried := func() uint64 {
			s := p.client.Stats()
			return s.Sent + s.Received
		}
		was := carried()
		time.Sleep(time.Hour)
		// Two carriers, each asked every 4 minutes and 40 seconds by both portals.
		const most = 2 * 2 * 15 * 2 * (wire.FrameHeaderLen + 8)
		if n := carried() - was; n > most {
			t.Errorf("%d bytes in an hour in which nothing was to be carried, want %d at most", n, most)
		}
		stop()
		p.stopAndDrain()
	})
}

// A direct path that falls silent is left for the relay's as soon as that shows, though
// it is not dead yet, and taken again when it answers.
func TestSilentDirectPathIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPairOver(t, echoes, silences, alone)
		k, stop := p.tick(100 * time.Millisecond)
		for range 3 {
			direct := p.connectDirect(silences)
			time.Sleep(10 * time.Second)
			if n, _, _ := onDirect(p.client); n != 1 {
				t.Fatalf("%d streams on the direct path", n)
			}
			k.longest()
			direct.silence()
			time.Sleep(10 * time.Second)
			if gap := k.longest(); gap > 2*time.Second {
				t.Errorf("nothing came back for %v", gap)
			}
			if n, relayed, flows := onDirect(p.client); n != 0 || relayed != 1 || flows {
				t.Errorf("%d streams on the silent direct path, %d by the relay, flows: %v", n, relayed, flows)
			}
		}
		stop()
		p.stopAndDrain()
	})
}

// Each carrier's own round trip is measured at once; one that does not answer holds up no
// other.
func TestEveryCarrierIsPinged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := func(rtt time.Duration) func() (net.Conn, net.Conn) {
			return func() (net.Conn, net.Conn) { return carriertest.Far(rtt / 2) }
		}
		p := newPairOver(t, refuseAll, far(80*time.Millisecond), alone)
		p.connectDirect(far(20 * time.Millisecond))
		p.connectDirect(silences).silence()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		want := []time.Duration{80 * time.Millisecond, 20 * time.Millisecond, 0}
		list := p.client.PingEach(ctx)
		for i, c := range list {
			if c.RTT != want[i] || c.Direct != (i > 0) {
				t.Errorf("carrier %d: %v, direct: %v; want %v", i, c.RTT, c.Direct, want[i])
			}
		}
		if len(list) != len(want) {
			t.Errorf("%d carriers", len(list))
		}
		p.stopAndDrain()
	})
}

// What a portal offers reaches the other whatever carriers break meanwhile, each list
// once, and never an older one after a newer.
func TestOffersReachThePeer(t *testing.T) {
	got := make(chan []wire.Candidate, 100)
	p := newBarePair(t, refuseAll, overTCP(t), func(client, server *Config) {
		alone(client, server)
		client.Machine = [16]byte{7}
		server.Candidates = func(m wire.Candidates) {
			if m.Machine != client.Machine {
				t.Errorf("machine %x, want %x", m.Machine, client.Machine)
			}
			got <- m.List
		}
	})
	candidate := func(n int) []wire.Candidate {
		return []wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginHost, Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1024+n))}}
	}
	p.client.Offer(candidate(0)) // before there is a carrier
	last := p.connect()
	p.proven()
	for i := range 10 {
		list := <-got
		if len(list) != 1 || list[0] != candidate(i)[0] {
			t.Errorf("list %d: %v", i, list)
		}
		p.client.Offer(candidate(i)) // nothing new
		if i%3 == 2 {
			last.a.Close()
			last = p.connect()
			p.proven()
		}
		p.client.Offer(candidate(i + 1))
	}
	<-got
	p.client.Offer(nil)
	if list := <-got; len(list) != 0 {
		t.Errorf("no candidates any more: %v", list)
	}
	if len(got) != 0 {
		t.Errorf("%d lists more than were offered", len(got))
	}
	p.server.candidates(wire.Candidates{Number: 3, Machine: [16]byte{7}, List: candidate(0)})
	if len(got) != 0 {
		t.Error("an older list was taken")
	}
}
