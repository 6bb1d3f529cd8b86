//go:build linux

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// limit is how long a test waits for what should take no time.
const limit = 10 * time.Second

// await waits until something holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// run runs a Kernel until the test ends, in the relay's namespace. Events are
// handed to handle.
func (w *world) run(k *Kernel, handle func(Event)) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread leaves with its namespace
		err := netns.Set(w.relay)
		if err == nil {
			err = k.Run(ctx, handle)
		}
		done <- err
	}()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}

// meet makes the relay know the MAC addresses of both hosts.
func (w *world) meet(v6 bool) {
	w.Helper()
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	for i := range w.hosts {
		c := w.dial(i, netip.AddrPort{}, netip.AddrPortFrom(relayAddr(i, v6), 9))
		defer c.Close()
		await(w, "the relay knows its neighbour", func() bool {
			if _, err := c.Write([]byte("hello")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
				w.Fatal(err)
			}
			l, err := netlink.LinkByName(sides[i])
			if err != nil {
				w.Fatal(err)
			}
			list, err := netlink.NeighList(l.Attrs().Index, family)
			if err != nil {
				w.Fatal(err)
			}
			for _, n := range list {
				if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == hostAddr(i, v6) && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NONE) == 0 {
					return true
				}
			}
			return false
		})
	}
}

// dial opens a UDP socket of a host.
func (w *world) dial(host int, local, remote netip.AddrPort) (c *net.UDPConn) {
	w.Helper()
	w.in(host, func() {
		var from *net.UDPAddr
		if local.IsValid() {
			from = net.UDPAddrFromAddrPort(local)
		}
		var err error
		if c, err = net.DialUDP("udp", from, net.UDPAddrFromAddrPort(remote)); err != nil {
			w.Fatal(err)
		}
	})
	c.SetReadBuffer(4 << 20)
	return c
}

// ends opens the sockets of a pair's legs.
func (w *world) ends(p Pair) (list [2]*net.UDPConn) {
	w.Helper()
	for i, l := range []Leg{p.A, p.B} {
		c := w.dial(i, l.Remote, netip.AddrPortFrom(l.Local, l.Port))
		w.Cleanup(func() { c.Close() })
		list[i] = c
	}
	return list
}

// stream sends numbered datagrams from one socket to another, with a few on
// their way at a time, and calls at with how many have arrived, now and then. It
// returns how many are missing when nothing comes any more.
func stream(t testing.TB, from, to *net.UDPConn, count int, at func(arrived int)) (lost int) {
	t.Helper()
	const window = 64
	var arrived atomic.Int64
	moved := make(chan struct{}, 1)
	received := make(chan error, 1)
	go func() {
		seen := make([]bool, count)
		b := make([]byte, 2048)
		for range count {
			to.SetReadDeadline(time.Now().Add(limit / 5))
			n, err := to.Read(b)
			if err != nil {
				received <- err
				return
			}
			number := binary.BigEndian.Uint64(b)
			if n != payload || number >= uint64(count) || seen[number] {
				received <- errors.New("a datagram that was not sent, or came already")
				return
			}
			seen[number] = true
			arrived.Add(1)
			select {
			case moved <- struct{}{}:
			default:
			}
		}
		received <- nil
	}()
	b := make([]byte, payload)
	for i := range count {
		for i-int(arrived.Load()) >= window {
			select {
			case <-moved:
				continue
			case err := <-received:
				t.Logf("after %d of %d datagrams: %v", arrived.Load(), i, err)
				return i - int(arrived.Load())
			}
		}
		if i%100 == 0 && at != nil {
			at(int(arrived.Load()))
		}
		binary.BigEndian.PutUint64(b, uint64(i))
		if _, err := from.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		t.Logf("of %d datagrams %d arrived: %v", count, arrived.Load(), err)
	}
	return count - int(arrived.Load())
}

// payload is the length of the datagrams of a stream.
const payload = 100

// silent checks that nothing that is sent at one end comes to the other. The
// relay's stack may refuse it.
func silent(t testing.TB, from, to *net.UDPConn) {
	t.Helper()
	for range 10 {
		if _, err := from.Write(make([]byte, payload)); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := to.Read(make([]byte, 2048)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a datagram came, or %v", err)
	}
}
