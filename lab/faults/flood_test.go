package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/stage"
	"github.com/netport/netport/lab/topo"
)

// flood is strangers who open connections and send a byte a second on each, and open another for each that is closed.
type flood struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards the following
	opened int
	conns  []net.Conn
}

// source is where a stranger of a flood connects from.
type source struct {
	host *topo.Host
	addr netip.Addr
}

// startFlood starts it, from sources. Each byte is the next of prefix, so that the daemon waits for more.
func startFlood(t *testing.T, sources []source, to netip.AddrPort, prefix string) *flood {
	ctx, stop := context.WithCancel(t.Context())
	f := &flood{stop: stop}
	t.Cleanup(f.end)
	for part := range slices.Chunk(sources, len(sources)/strangers) {
		f.running.Go(func() {
			conns, sent := make([]net.Conn, len(part)), make([]int, len(part))
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for ctx.Err() == nil {
				for i := range conns {
					if conns[i] != nil {
						if _, err := conns[i].Write([]byte{prefix[sent[i]%len(prefix)]}); err == nil {
							sent[i]++
							continue
						}
						conns[i].Close()
					}
					dialing, cancel := context.WithTimeout(ctx, time.Second)
					conn, err := part[i].host.DialFrom(dialing, part[i].addr, to)
					cancel()
					conns[i], sent[i] = nil, 0
					if err == nil {
						conns[i] = conn
						f.mu.Lock()
						f.opened++
						f.conns = append(f.conns, conn)
						f.mu.Unlock()
					}
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return f
}

// silence ends the sending. The connections stay open.
func (f *flood) silence() {
	f.stop()
	f.running.Wait()
}

func (f *flood) end() {
	f.silence()
	for _, conn := range f.conns {
		conn.Close()
	}
}

func (f *flood) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// startJunk sends datagrams of random lengths to a port until the function it returns is called, which says how many.
func startJunk(t *testing.T, host *topo.Host, to netip.AddrPort, perSecond int) (stop func() int) {
	socket := host.ListenUDP(0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		const tick = 10 * time.Millisecond
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		payload, sent := make([]byte, 1400), 0
		for {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				done <- sent
				return
			}
			for range perSecond / int(time.Second/tick) {
				if _, err := socket.WriteToUDPAddrPort(payload[:rand.N(len(payload))], to); err == nil {
					sent++
				}
			}
		}
	}()
	return func() int {
		cancel()
		return <-done
	}
}

// Of a flood.
const (
	strangers = 8    // that work at once
	addresses = 2000 // that they have in all, in 250 networks
)

// floodSources are connections of a host that has all the addresses, so many of each, and more of one alone.
func (w *world) floodSources(host *topo.Host, each, more int) (list []source) {
	host.Also(netip.MustParsePrefix("21.0.0.0/8"))
	for i := range addresses {
		for range each {
			list = append(list, source{host, netip.AddrFrom4([4]byte{21, 0, byte(i / 8), byte(i%8 + 1)})})
		}
	}
	for range more {
		list = append(list, source{host, host.Addr4()})
	}
	return list
}

// T6 and G8: half-open connections, many more than are kept, keep no honest portal out and cost little memory, and
// whoever holds them is gone soon after. What has a tunnel does not notice.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	joins := 20
	if *full {
		stage.EnterSerially(t) // one at a time, or their connections do not fit into this process's descriptors
		joins = 100
	} else {
		t.Parallel()
	}
	t.Run("server", func(t *testing.T) {
		w := newWorld(t)
		w.allow(w.echoes()...)
		host, credentials := w.lab.Public("honest"), w.identity("portal", "honest")
		w.testFlood(w.Server.Daemon, w.serverAddr(), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", joins, func() time.Duration {
			start := time.Now()
			w.join(host, credentials).conn.Close()
			return time.Since(start)
		})
	})
	t.Run("relay", func(t *testing.T) {
		w := newWorld(t)
		tablet := w.Portal(w.home.Host("tablet"))
		w.Apply(w.policy(w.echoes()...) + "[[forward]]\nname = \"tablet\"\nfrom = \"tablet stdio:\"\nto = \"factory tcp://127.0.0.1:7\"\n")
		w.laptop.WaitUp("tcp")
		w.laptop.Run("ping", "--count", "1", "factory") // for a session, whose port is flooded
		w.testFlood(w.relay.Daemon, w.relayAddr(w.sessionPort()), "NPLG\x01", joins/4, func() time.Duration {
			tablet.Restart() // without a tunnel
			start := time.Now()
			tablet.Run("ping", "--count", "1", "factory")
			return time.Since(start)
		})
	})
}

// testFlood floods a daemon's port, with the beginning of what an honest peer would send there, while honest portals
// come; honest says how long one took.
func (w *world) testFlood(d *daemon.Daemon, to netip.AddrPort, prefix string, tries int, honest func() time.Duration) {
	const mostMemory, mostWait, mostHandshake = 64 << 20, 15 * time.Second, time.Second
	const kept = 1000
	const own = 20 // descriptors that a further carrier of the traffic and a session of an honest portal may take
	t := w.t
	each, more, junk := 1, 400, 2000 // more than a thousand connections in all; datagrams a second
	if *full {
		each, more, junk = 6, 5000, 20_000 // all of them fit into the descriptors of one process
	}
	stranger := w.lab.Public("stranger")
	sources := w.floodSources(stranger, each, more)
	usual := honest()
	before, open := d.Memory(), d.Descriptors()
	traffic := w.startTraffic()
	f, stopJunk := startFlood(t, sources, to, prefix), startJunk(t, stranger, to, junk)
	await.Until(t, "flooded", func() error {
		if n := f.count(); n < len(sources) {
			return fmt.Errorf("%d of %d connections were opened", n, len(sources))
		}
		return nil
	})
	var slowest time.Duration
	for range tries {
		slowest = max(slowest, honest())
	}
	await.Passing(t, 2*time.Second)
	slowest = max(slowest, honest())
	t.Logf("the slowest of %d honest portals took %v, without strangers %v", tries+1, slowest, usual)
	if slowest > mostHandshake+usual {
		t.Errorf("an honest portal took %v, want %v at most", slowest, mostHandshake)
	}
	if n := d.Descriptors() - open; n > kept+100 { // what is closed and not noticed yet
		t.Errorf("it holds %d connections of strangers, want %d at most", n, kept)
	}
	grown := d.Memory() - before
	t.Logf("%d connections were opened, memory grew by %d KiB", f.count(), grown>>10)
	if grown > mostMemory {
		t.Errorf("its memory grew by %d bytes, want %d at most", grown, mostMemory)
	}
	f.silence()
	t.Logf("%d datagrams of junk were sent", stopJunk())
	traffic.end()
	start := time.Now()
	await.Within(t, "rid of the strangers", mostWait+5*time.Second, func() error {
		if n := d.Descriptors() - open; n > own {
			return fmt.Errorf("%d descriptors are open still", n)
		}
		return nil
	})
	took := time.Since(start)
	t.Logf("the strangers were gone after %v", took)
	if took > mostWait {
		t.Errorf("it took %v until the strangers were gone, want %v at most", took, mostWait)
	}
}
