package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// triangle is three portals, each behind a NAT of its own, of which each has a forward to an echo service of the next.
type triangle struct {
	*daemon.Network
	t       *testing.T
	relay   *daemon.Relay
	portals []*daemon.Portal
}

func newTriangle(t *testing.T) *triangle {
	t.Helper()
	l := topo.New(t)
	w := &triangle{t: t, Network: daemon.New(t, l.Public("server"), daemon.Measured())}
	host := l.Public("relay")
	w.relay = w.Relay(host, inMode(host, ""), daemon.Measured())
	for i, name := range []string{"one", "two", "three"} {
		nat := []topo.NAT{topo.PortRestricted, topo.Symmetric, topo.PortRestricted}[i]
		p := w.Portal(l.Router("home-"+name, nat, topo.IPv4Only()).Host(name))
		w.portals = append(w.portals, p)
		p.Host().EchoTCP(servicePort)
	}
	var policy strings.Builder
	for i, p := range w.portals {
		fmt.Fprintf(&policy, "[[forward]]\nname = \"from-%s\"\nfrom = \"%[1]s tcp://127.0.0.1:%d\"\n", p.Name(), entryPort)
		fmt.Fprintf(&policy, "to = \"%s tcp://127.0.0.1:%d\"\n", w.portals[(i+1)%len(w.portals)].Name(), servicePort)
	}
	w.Apply(policy.String())
	for _, p := range w.portals {
		p.WaitUp("from-" + p.Name())
	}
	return w
}

// useOnce opens a connection from a portal, carries 1 KB there and back, closes it, and says how long it took until it was set
// up: until the first bytes had come back.
func (w *triangle) useOnce(from *daemon.Portal, number int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), await.Patience)
	defer cancel()
	began := time.Now()
	conn, err := from.Host().DialContext(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), entryPort))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(began.Add(await.Patience))
	sent := bytes.Repeat(fmt.Appendf(nil, "%015d\n", number), 64)
	got := make([]byte, len(sent))
	if _, err := conn.Write(sent); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(conn, got[:1]); err != nil {
		return 0, err
	}
	took = time.Since(began)
	if _, err := io.ReadFull(conn, got[1:]); err != nil {
		return 0, err
	}
	if !bytes.Equal(sent, got) {
		return 0, fmt.Errorf("other bytes came back than were sent: %.20q", got)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	if n, err := conn.Read(got); err != io.EOF {
		return 0, fmt.Errorf("%d bytes more, %w; want a clean end", n, err)
	}
	return took, nil
}

// series uses so many connections, 50 at a time, the portals in turn, and says how long each took until it was set up.
func (w *triangle) series(connections int) (took []time.Duration) {
	w.t.Helper()
	const together = 50
	var mu sync.Mutex // guards took
	numbers := make(chan int)
	var running sync.WaitGroup
	for range together {
		running.Go(func() {
			for n := range numbers {
				d, err := w.useOnce(w.portals[n%len(w.portals)], n)
				if err != nil {
					w.t.Errorf("connection %d: %v", n, err)
					continue
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	for n := range connections {
		numbers <- n
	}
	close(numbers)
	running.Wait()
	return took
}

// taken is what a daemon takes of its machine.
type taken struct {
	descriptors, goroutines int
	memory                  int64
}

func (w *triangle) taken() map[*daemon.Daemon]taken {
	w.t.Helper()
	all := make(map[*daemon.Daemon]taken)
	for _, d := range append([]*daemon.Daemon{w.Server.Daemon, w.relay.Daemon}, w.daemons()...) {
		all[d] = taken{d.Descriptors(), d.Goroutines(), d.Memory()}
	}
	return all
}

func (w *triangle) daemons() (list []*daemon.Daemon) {
	for _, p := range w.portals {
		list = append(list, p.Daemon)
	}
	return list
}

// F48: connections through three portals that come and go, 50 at a time, leave nothing at portals, relay and server: no
// descriptor, no goroutine, and no memory that goes on growing. When the portals are gone, the relay has no session and its
// kernel no entry.
func TestConnectionsThatComeAndGoLeaveNothing(t *testing.T) {
	const mostMemory, mostWait = 20 << 20, 500 * time.Millisecond
	connections := scaled(10_000, 20)
	w := newTriangle(t)
	idle := heldBy(t, w.relay).entries
	w.series(200) // what is made once is there before
	await.Passing(t, 5*time.Second)
	before := w.taken()
	began := time.Now()
	took := w.series(connections / 2)
	halfway := w.taken()
	took = slices.Sorted(slices.Values(append(took, w.series(connections/2)...)))
	t.Logf("%d connections in %v; set up in %v, 99 of 100 in %v, all in %v", len(took), time.Since(began).Round(time.Millisecond), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	if p99 := took[len(took)*99/100]; p99 > mostWait {
		t.Errorf("99 of 100 connections were set up within %v, want %v", p99, mostWait)
	}
	await.Until(t, "as before", func() error {
		var errs []error
		for d, now := range w.taken() {
			was := before[d]
			if now.descriptors != was.descriptors || now.goroutines > was.goroutines+10 {
				errs = append(errs, fmt.Errorf("%s has %d descriptors and %d goroutines, and had %d and %d", d.Name(), now.descriptors, now.goroutines, was.descriptors, was.goroutines))
			}
		}
		return errors.Join(errs...)
	})
	for d, now := range w.taken() {
		t.Logf("%s: %+v, halfway %+v, before %+v", d.Name(), now, halfway[d], before[d])
		if grown := now.memory - before[d].memory; grown > mostMemory {
			t.Errorf("%s has grown by %d bytes, want %d at most", d.Name(), grown, mostMemory)
		}
		if grown := now.memory - halfway[d].memory; grown > mostMemory/4 {
			t.Errorf("%s has grown by %d bytes in the second half, want it to have stopped growing", d.Name(), grown)
		}
	}
	for _, p := range w.portals {
		p.Stop()
	}
	await.Until(t, "without a session", func() error {
		var status struct{ Sessions []any }
		w.relay.Status(&status)
		if n := len(status.Sessions); n > 0 {
			return fmt.Errorf("the relay has %d sessions", n)
		}
		if n := heldBy(t, w.relay).entries; n != idle {
			return fmt.Errorf("the kernel has %d entries, and had %d", n, idle)
		}
		return nil
	})
}
