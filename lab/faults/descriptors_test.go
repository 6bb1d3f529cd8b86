package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// F39: a daemon that has few descriptors does not spin, and what it carries goes on. Strangers get a share of them only, so
// that they keep no portal from server and relay; applications get none of the last, so that a portal's control connection
// can be made anew and its command line is answered. To applications it serves again as soon as there are some.
func TestDaemonsOutliveDescriptorExhaustion(t *testing.T) {
	const most = 64
	w := newWorld(t)
	w.allow(w.echoes()[0], w.other())
	hold(t, w.plc.Listen(echoPort), echo)
	stranger, ln := w.lab.Public("stranger"), w.plc.Listen(otherPort)
	stream := w.connect(otherEntry, ln)
	credentials := w.identity("portal", "honest")

	join := func() { w.join(stranger, credentials).conn.Close() }
	tunnel := func() {
		w.factory.Restart() // for a new tunnel, at a port of its own
		w.laptop.WaitUp("other")
		stream = w.connect(otherEntry, ln)
	}
	reconnect := func(p *daemon.Portal) func() {
		return func() {
			w.Server.Stop()
			waitServer(t, p, false)
			w.Server.Start()
			waitServer(t, p, true)
		}
	}
	connect := func() { w.connect(otherEntry, ln) }
	entry := func() netip.AddrPort { return local(entryPort) }
	for _, c := range []struct {
		daemon *daemon.Daemon
		from   *topo.Host
		to     func() netip.AddrPort
		steers func()   // meanwhile
		serves func()   // again; it ends the test if not
		refuse []string // what the log says of it
	}{
		{w.Server.Daemon, stranger, w.serverAddr, join, join, nil},
		{w.relay.Daemon, stranger, func() netip.AddrPort { return w.relayAddr(w.sessionPort()) }, tunnel, connect, nil},
		{w.laptop.Daemon, w.laptop.Host(), entry, reconnect(w.laptop), connect, []string{"connection not accepted", "too many open files"}},
		{w.factory.Daemon, w.laptop.Host(), entry, reconnect(w.factory), connect, []string{"refused to a peer", "exit portal could not dial", "too many open files"}},
	} {
		t.Run(c.daemon.Name(), func(t *testing.T) {
			w.wantRest(c.daemon, most/2)
			lift := limitDescriptors(t, c.daemon, most)
			mark := c.daemon.Process().Mark()
			taken := dialMany(t, c.from, c.to(), 100)
			if c.refuse != nil {
				wantLogged(t, c.daemon, mark, c.refuse...)
			}
			before := cpuTime(t, c.daemon)
			await.Passing(t, time.Second)
			if used := cpuTime(t, c.daemon) - before; used > time.Second/4 {
				t.Errorf("it used %v of a second of the processor", used)
			}
			stream.alive(t)
			c.daemon.Run("status")
			c.steers()
			stream.alive(t)

			for _, conn := range taken {
				conn.Close()
			}
			lift()
			start := time.Now()
			c.serves()
			took := time.Since(start)
			t.Logf("serves again after %v", took)
			if took > time.Second {
				t.Errorf("it took %v to serve again", took)
			}
			stream.alive(t)
		})
	}
}

// dialMany opens connections, or begins to: those that the daemon does not take wait in its listener's queue.
func dialMany(t *testing.T, from *topo.Host, to netip.AddrPort, count int) (conns []net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	for range count {
		conn, err := from.DialContext(ctx, "tcp", to)
		if err != nil {
			continue // turned away already
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// hold takes every connection of a service, serves it, and leaves it open until the test ends, unless serve closes it.
func hold(t *testing.T, ln net.Listener, serve func(net.Conn)) {
	var held []net.Conn
	var serving sync.WaitGroup
	done := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-done
		for _, conn := range held {
			conn.Close()
		}
		serving.Wait()
	})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			held = append(held, conn)
			serving.Go(func() { serve(conn) })
		}
	}()
}

// echo sends back what comes, until the client ends it.
func echo(conn net.Conn) {
	io.Copy(conn, conn)
	conn.Close()
}

// wantRest waits until what an earlier case has left behind is over: connections that waited in the entry portal's queue
// are carried to their end even where their clients have gone. Then the daemon has so many descriptors at most.
func (w *world) wantRest(d *daemon.Daemon, most int) {
	w.t.Helper()
	last := w.dial("tcp", entryPort) // behind all that wait
	wantEcho(w, last)
	last.Close()
	await.Until(w.t, d.Name()+" at rest", func() error {
		if n := d.Descriptors(); n > most {
			return fmt.Errorf("%d descriptors are open", n)
		}
		return nil
	})
}

// F39: a daemon that gets no descriptor at all answers its operator, and what it carries goes on.
func TestDaemonsWithoutDescriptorsAnswer(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	ln := w.plc.Listen(otherPort)
	stream := w.connect(otherEntry, ln)
	for _, d := range w.daemons() {
		lift := limitDescriptors(t, d, lowestFree(t, d))
		mark := d.Process().Mark()
		for range 3 {
			d.Run("status")
		}
		if d == w.laptop.Daemon {
			w.dial("tcp", otherEntry)
			wantLogged(t, d, mark, "connection not accepted", "too many open files")
			d.Run("status")
		}
		stream.alive(t)
		lift()
	}
	await.Accept(t, ln) // the one that the laptop could not take
	w.connect(otherEntry, ln)
	stream.alive(t)
}

// lowestFree is the number that the daemon's next descriptor will have.
func lowestFree(t *testing.T, d *daemon.Daemon) (free uint64) {
	t.Helper()
	for ; ; free++ {
		_, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", d.Process().PID(), free))
		if errors.Is(err, fs.ErrNotExist) {
			return free
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sessionPort is the port of the one session that the relay holds.
func (w *world) sessionPort() uint16 {
	w.t.Helper()
	sessions := w.relayStatus().Sessions
	if len(sessions) != 1 {
		w.t.Fatalf("the relay holds %d sessions, want 1", len(sessions))
	}
	return sessions[0].Port
}
