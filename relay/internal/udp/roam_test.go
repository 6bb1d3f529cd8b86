package udp

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/proto/leg"
)

// A leg that binds from elsewhere, again and again, gets every packet that the
// other one sends meanwhile, at one of its places, once.
func TestRoamingLegLosesNothingOfWhatTheOtherSends(t *testing.T) {
	for name, at := range map[string]func(*meeting) netip.AddrPort{
		"its own port": func(m *meeting) netip.AddrPort { return m.at },
		"shared port":  func(m *meeting) netip.AddrPort { return m.g.shared },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			m := g.session()
			a, b := m.both(0, at(m))
			var mu sync.Mutex
			seen := make(map[uint64]int)
			var reading sync.WaitGroup
			// read counts what comes to a socket, and lets the bind under way have the rest.
			read := func(p *portal, binder *leg.Binder, bound chan struct{}) {
				reading.Go(func() {
					buf := make([]byte, 1500)
					for {
						n, err := p.Read(buf)
						switch {
						case err != nil: // closed
							return
						case n == 8:
							mu.Lock()
							seen[binary.BigEndian.Uint64(buf)]++
							mu.Unlock()
							continue
						}
						mu.Lock()
						binder.Handle(buf[:n])
						packet, _ := binder.Packet(time.Now())
						_, done := binder.Mapped()
						mu.Unlock()
						if done {
							close(bound)
						} else if packet != nil {
							p.WriteToUDPAddrPort(packet, p.relay)
						}
					}
				})
			}
			read(a, nil, nil)
			stop := make(chan struct{})
			var sent atomic.Uint64
			var sending sync.WaitGroup
			sending.Go(func() {
				tick := time.NewTicker(20 * time.Microsecond)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
						b.send(binary.BigEndian.AppendUint64(nil, sent.Load()))
						sent.Add(1)
					}
				}
			})
			places := []*portal{a}
			for range 20 {
				before := sent.Load()
				g.await("the other leg sends", func() bool { return sent.Load() >= before+20 })
				p := &portal{g.socket(), g, a.binder, a.relay}
				places = append(places, p)
				bound := make(chan struct{})
				mu.Lock()
				a.binder.Start()
				packet, _ := a.binder.Packet(time.Now())
				mu.Unlock()
				read(p, a.binder, bound)
				p.send(packet)
				select {
				case <-bound:
				case <-time.After(10 * time.Second):
					t.Fatal("a bind stays unanswered")
				}
			}
			close(stop)
			sending.Wait()
			g.await("all has come", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(seen) == int(sent.Load())
			})
			for _, p := range places {
				p.Close()
			}
			reading.Wait()
			for n, times := range seen {
				if times != 1 {
					t.Errorf("packet %d has come %d times", n, times)
				}
			}
			if drops := g.cfg.Drops.All(); len(drops) != 0 {
				t.Errorf("drops %v", drops)
			}
		})
	}
}
