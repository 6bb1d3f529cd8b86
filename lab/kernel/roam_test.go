package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/forge"
	"github.com/netport/netport/lab/meter"
	"github.com/netport/netport/proto/leg"
)

// tally counts numbered datagrams, by whichever socket they come.
type tally struct {
	mu   sync.Mutex // guards the following
	seen map[uint64]int
}

// read counts what a leg gets until it is closed, or nothing has come for a while.
func (y *tally) read(l udpLeg) error {
	b := make([]byte, 100)
	for {
		if err := l.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		n, err := l.Read(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case n != 8:
			return fmt.Errorf("a datagram of %d bytes", n)
		}
		y.count(b)
	}
}

func (y *tally) count(b []byte) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.seen[binary.BigEndian.Uint64(b)]++
}

// moveLeg binds a leg by a new socket, to which datagrams may come before the answer: it does not lose them.
func (m *meeting) moveLeg(i int, counter uint64, y *tally) udpLeg {
	t := m.w.t
	t.Helper()
	conn := m.w.sides[i].ListenUDP(0)
	at := netip.AddrPortFrom(m.at[i], m.Ready.UDP)
	binder := leg.NewBinder(leg.ID{Session: m.ID, Leg: uint8(i)}, m.Secrets[i], counter)
	b := make([]byte, 1500)
	for late := time.Now().Add(await.Patience); ; {
		packet, again := binder.Packet(time.Now())
		if packet != nil {
			if _, err := conn.WriteToUDPAddrPort(packet, at); err != nil {
				t.Fatal(err)
			}
		}
		if mapped, bound := binder.Mapped(); bound {
			return udpLeg{meter.Peer{PacketConn: conn, Addr: net.UDPAddrFromAddrPort(at)}, mapped}
		}
		if time.Now().After(late) {
			t.Fatalf("leg %d is not bound within %v", i, await.Patience)
		}
		if err := conn.SetReadDeadline(again); err != nil {
			t.Fatal(err)
		}
		n, _, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			t.Fatal(err)
		case n == 8:
			y.count(b)
		default:
			binder.Handle(b[:n])
		}
	}
}

// A leg that binds from another socket, as after a change of its NAT's mapping, moves while datagrams come: each reaches it
// at the old place or at the new one. What was recorded of the first bind moves it nowhere (T3).
func TestLegThatMovesLosesNothing(t *testing.T) {
	t.Parallel()
	const moves = 5
	count := scaled(50_000, 20)
	for _, mode := range kernelModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode})
			a := w.attack()
			m := w.meet(anyTerms)
			legs := m.bind()
			y := &tally{seen: make(map[uint64]int)}
			var reading sync.WaitGroup
			follow := func(l udpLeg) {
				reading.Go(func() {
					if err := y.read(l); err != nil {
						t.Error(err)
					}
				})
			}
			follow(legs[0])
			sent := make(chan error, 1)
			go func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for i := range count {
					if _, err := legs[1].Write(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
						sent <- err
						return
					}
					<-tick.C
				}
				sent <- nil
			}()
			last := legs[0]
			for i := range moves {
				last = m.moveLeg(0, uint64(10+i), y)
				follow(last)
				recorded, _ := leg.NewBinder(leg.ID{Session: m.ID}, m.Secrets[0], 1).Packet(time.Now())
				a.UDP(netip.AddrPortFrom(a.attacker.Addr4(), 5000), w.relayAt(m.Ready.UDP), recorded)
				await.Passing(t, 200*time.Millisecond)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			reading.Wait()
			lost, twice := 0, 0
			for i := range count {
				switch n := y.seen[uint64(i)]; {
				case n == 0:
					lost++
				case n > 1:
					twice++
				}
			}
			if lost > 0 || twice > 0 {
				s := w.status()
				t.Errorf("of %d datagrams to a leg that moved, %d were lost and %d came twice; dropped %v, in the kernel %v",
					count, lost, twice, s.Drops, s.KernelDrops)
			}
			checkDatagrams(t, [2]udpLeg{last, legs[1]}, datagrams(100))
			a.wantNothingHeard()
		})
	}
}

// T2 for TCP: a reset or data that is forged with the very addresses and ports of a flow is judged by its ends, which want
// the right sequence numbers: the relay does not know them, and passes it on.
func TestBlindSegmentsDoNotBreakAConnection(t *testing.T) {
	w := newWorld(t, plan{})
	a := w.attack()
	m := w.meet(anyTerms)
	ends := m.connect(0)
	port := ends[0].LocalAddr().(*net.TCPAddr).AddrPort().Port() // which the NAT keeps where it can
	from := netip.AddrPortFrom(w.sides[0].source(4), port)
	done := make(chan struct{})
	go func() {
		defer close(done)
		checkStream(t, ends, 8<<20)
	}()
	for i := range scaled(20_000, 10) {
		for _, flags := range []uint8{forge.RST, forge.SYN, forge.ACK, forge.FIN | forge.ACK} {
			a.TCP(from, m.packetAt(0, 0), forge.Segment{Flags: flags, Seq: uint32(i) * 214_748, Ack: uint32(i)})
		}
	}
	<-done
	a.wantNothingHeard()
}
