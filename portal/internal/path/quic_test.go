package path

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// twoPortals is two portals with a session at a relay, each behind a NAT of its own.
type twoPortals struct {
	*authority
	relay   *udpRelay
	nats    [2]*nat
	finders [2]*Finder
	legs    [2]*Leg
}

var names = [2]string{"ann", "factory"}

func newPortals(t *testing.T) *twoPortals {
	p := &twoPortals{authority: newAuthority(t), relay: newUDPRelay(t, "127.0.0.1")}
	for i := range p.legs {
		p.nats[i] = newNAT(t, at(p.relay.conns[0]))
		p.finders[i] = p.finder(names[i])
		p.legs[i] = p.relay.leg(p.finders[i], uint8(i), accessAt(at(p.nats[i].inside)))
	}
	return p
}

func (a *authority) tls(i int) *tls.Config {
	c, peer := a.Credentials(identity.Portal, names[i]), identity.Expect(identity.Portal, names[1-i])
	if i == 0 {
		return c.ClientTLS(identity.ProtocolTunnel, peer)
	}
	return c.ServerTLS(identity.ProtocolTunnel, peer)
}

// quicOf returns the way over UDP.
func quicOf(ways []Way, _ []time.Duration) PacketWay {
	for _, w := range ways {
		if q, ok := w.(PacketWay); ok {
			return q
		}
	}
	return nil
}

// connect makes a QUIC connection over the ways that both portals have.
func (a *authority) connect(client, server PacketWay) (ends [2]*quic.Conn) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 20*time.Second)
	defer cancel()
	var errs [2]error
	var both sync.WaitGroup
	for i, w := range []PacketWay{client, server} {
		both.Go(func() {
			ends[i], errs[i] = w.Quic(ctx, i == 0, a.tls(i), &quic.Config{MaxIdleTimeout: 15 * time.Minute})
		})
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() {
		for _, c := range ends {
			c.CloseWithError(0, "")
		}
	})
	return ends
}

func (p *twoPortals) connect() [2]*quic.Conn {
	p.Helper()
	return p.authority.connect(quicOf(p.legs[0].Ways(0)), quicOf(p.legs[1].Ways(0)))
}

// dial makes the client's end of a connection, and wait the server's when it
// comes.
func (a *authority) dial(w PacketWay) *quic.Conn {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 20*time.Second)
	defer cancel()
	conn, err := w.Quic(ctx, true, a.tls(0), &quic.Config{})
	if err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { conn.CloseWithError(0, "") })
	return conn
}

func (a *authority) wait(w PacketWay) <-chan *quic.Conn {
	came := make(chan *quic.Conn, 1)
	secure := a.tls(1)
	go func() {
		defer close(came)
		ctx, cancel := context.WithTimeout(a.Context(), 20*time.Second)
		defer cancel()
		conn, err := w.Quic(ctx, false, secure, &quic.Config{})
		if err != nil {
			a.Error(err)
			return
		}
		came <- conn
	}()
	return came
}

// carries checks that n bytes arrive.
func (a *authority) carries(from, to *quic.Conn, n int) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 20*time.Second)
	defer cancel()
	sent := bytes.Repeat([]byte("x"), n)
	out, err := from.OpenUniStreamSync(ctx)
	if err != nil {
		a.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		out.Write(sent)
		out.Close()
	})
	defer writing.Wait()
	in, err := to.AcceptUniStream(ctx)
	if err != nil {
		a.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(20 * time.Second))
	if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, sent) {
		a.Fatalf("%d bytes of %d arrived: %v", len(got), n, err)
	}
}

func TestQUICRunsOverBoundLegs(t *testing.T) {
	p := newPortals(t)
	ends := p.connect()
	p.carries(ends[0], ends[1], 1<<20)
	p.carries(ends[1], ends[0], 1<<20)
	for i, l := range p.legs {
		if mode, _ := l.Mode(); mode != "" {
			t.Errorf("portal %d: path %q before any carrier took it", i, mode)
		}
	}
}

// The relay answers no bind with success: who waited for that would wait for
// ever.
func TestFirstPacketFollowsTheBindRequestAtOnce(t *testing.T) {
	p := newPortals(t)
	p.relay.silence()
	ends := p.connect()
	p.carries(ends[0], ends[1], 1000)
}

// TestConnectionMayComeAsSoonAsTheLegIsBound: the relay hands on what it has held at
// once, maybe before whoever has bound the leg waits for it.
func TestConnectionMayComeAsSoonAsTheLegIsBound(t *testing.T) {
	p := newPortals(t)
	b, err := p.legs[1].bind(false, func(e *packet.Endpoint) { e.Expect(p.tls(1), &quic.Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.legs[1].unbind(b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := quicOf(p.legs[0].Ways(0)).Quic(ctx, true, p.tls(0), &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	conn.CloseWithError(0, "")
}

func TestBindAndHandshakeSurviveLoss(t *testing.T) {
	p := newPortals(t)
	for i, n := range p.nats {
		n.loses(9 + i)
	}
	ends := p.connect()
	p.carries(ends[0], ends[1], 100_000)
}

func TestSeveralConnectionsShareALegUntilTheLastIsClosed(t *testing.T) {
	p := newPortals(t)
	server := quicOf(p.legs[1].Ways(0))
	first := p.authority.connect(quicOf(p.legs[0].Ways(0)), server)
	second := p.authority.connect(quicOf(p.legs[0].Of(1, wire.CarrierQUIC)), server)
	if got := p.relay.bindsOf(0) + p.relay.bindsOf(1); got != 2 {
		t.Errorf("the legs were bound %d times, want once each", got)
	}
	first[0].CloseWithError(0, "")
	p.carries(second[1], second[0], 1000)
	second[0].CloseWithError(0, "")
	for _, l := range p.legs {
		eventually(t, "the leg is given back", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.binding == nil
		})
	}
	third := p.connect()
	p.carries(third[0], third[1], 1000)
}

func TestServerTakesAConnectionThatComesBeforeItWaitsAgain(t *testing.T) {
	p := newPortals(t)
	server := quicOf(p.legs[1].Ways(0))
	p.authority.connect(quicOf(p.legs[0].Ways(0)), server)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dialled, err := quicOf(p.legs[0].Again()).Quic(ctx, true, p.tls(0), &quic.Config{})
	if err != nil {
		t.Fatal(err) // its handshake is complete, and nobody has asked for it yet
	}
	accepted, err := server.Quic(ctx, false, p.tls(1), &quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p.carries(dialled, accepted, 1000)
	dialled.CloseWithError(0, "")
}

func TestConnectionGoesOnAfterNATRebinding(t *testing.T) {
	p := newPortals(t)
	ends := p.connect()
	for i := range p.nats {
		p.nats[i].rebind(t)
		p.legs[i].Refresh() // its carrier is silent
		p.relay.wantBinds(i, 2)
		p.carries(ends[i], ends[1-i], 10_000)
		p.carries(ends[1-i], ends[i], 10_000)
	}
}

func TestChangeOfTheNetworkBindsLegsAnew(t *testing.T) {
	p := newPortals(t)
	ends := p.connect()
	binds := 1
	for _, c := range []struct {
		name   string
		change network.Change
		anew   bool
	}{
		{"another network", network.Change{Network: true}, true},
		{"a new address", network.Change{New: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}, true},
		{"an address gone", network.Change{Gone: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}, true},
		{"a link back", network.Change{Link: true}, true},
		{"sleep", network.Change{Away: time.Hour}, true},
		{"the clock was set", network.Change{Clock: time.Hour}, false},
	} {
		p.finders[0].moved(c.change)
		if c.anew {
			binds++
			p.relay.wantBinds(0, binds)
		}
		p.carries(ends[0], ends[1], 1000)
		if got := p.relay.bindsOf(0); got != binds {
			t.Errorf("%s: bound %d times in all, want %d", c.name, got, binds)
		}
	}
}

// Nobody sends anything, and nobody is told: the Echoes find out.
func TestSilentLegIsHeldOpenAndFoundWhenItIsLost(t *testing.T) {
	p := newPortals(t)
	for _, f := range p.finders { // what the network holds is known: 1 s
		f.memory.remember(topic{what: udpHold}, fact{hold: hold{known: true, failed: 1, wait: time.Hour, again: time.Now().Add(time.Hour)}})
	}
	ends := p.connect()
	heard := func(i int) time.Time {
		b := p.legs[i].binding
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.keeper.silence.since
	}
	began := [2]time.Time{time.Now(), time.Now()}
	for i := range began {
		eventually(t, "an Echo comes in the silence", func() bool { return heard(i).After(began[i].Add(500 * time.Millisecond)) })
	}
	p.nats[1].rebind(t)
	p.relay.wantBinds(1, 2)
	p.carries(ends[0], ends[1], 1000)
	p.nats[0].forget()
	eventually(t, "the NAT is opened from inside", func() bool {
		p.nats[0].mu.Lock()
		defer p.nats[0].mu.Unlock()
		return !p.nats[0].forgot
	})
	p.carries(ends[1], ends[0], 1000)
}

func TestClosedLegEndsWhatRunsOverIt(t *testing.T) {
	p := newPortals(t)
	waiting := make(chan error)
	go func() {
		_, err := quicOf(p.legs[1].Ways(0)).Quic(t.Context(), false, p.tls(1), &quic.Config{})
		waiting <- err
	}()
	p.relay.wantBinds(1, 1)
	p.legs[1].Close()
	if err := <-waiting; !errors.Is(err, errLegClosed) {
		t.Errorf("who waited: %v", err)
	}
	if _, err := quicOf(p.legs[1].Ways(0)).Quic(t.Context(), false, p.tls(1), &quic.Config{}); !errors.Is(err, errLegClosed) {
		t.Errorf("who comes later: %v", err)
	}
}

func TestUnansweredBindEndsWithItsCaller(t *testing.T) {
	a := newAuthority(t)
	r := newUDPRelay(t, "127.0.0.1")
	silent := listenUDP(t, "127.0.0.1")
	defer silent.Close()
	l := r.leg(a.finder("ann"), 0, accessAt(at(silent)))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := quicOf(l.Ways(0)).Quic(ctx, true, a.tls(0), &quic.Config{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
}

// A network that swallows UDP: nobody waits for QUIC there until a whole carrier would
// be given up.
func TestQUICIsGivenUpWhereTheRelayIsNotHeard(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	mute, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	var both sync.WaitGroup
	for i := range names {
		session := a.session(wire.NewSecret(), 0, 0)
		session.Relay.UDP = mute.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		l, err := a.finder(names[i]).Leg(session, netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		secure := a.tls(i)
		both.Go(func() {
			began := time.Now()
			_, err := quicOf(l.Ways(0)).Quic(t.Context(), i == 0, secure, &quic.Config{})
			if took := time.Since(began); !errors.Is(err, errUnheard) || took < unheardTime || took > unheardTime+2*time.Second {
				t.Errorf("%s: %v after %v", names[i], err, took)
			}
		})
	}
	both.Wait()
}
