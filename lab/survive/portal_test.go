package survive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
	"github.com/netport/netport/lab/traffic"
)

// served reports why a client at a portal's port is not served. Meanwhile the service serves whoever comes: an attempt
// that was given up may have got through to it, too.
func served(from *daemon.Portal, port uint16, service net.Listener) error {
	defer await.Greet(service)()
	return await.Greeted(context.Background(), from.Host(), local(port))
}

// F15: a portal is suspended for a while. Its peer waits for it, and nothing is lost.
func TestPortalSuspended(t *testing.T) {
	t.Parallel()
	pause := whole(5*time.Second, time.Minute)
	overEach(t, plan{}, func(t *testing.T, w *world) {
		for _, suspended := range []*daemon.Portal{w.laptop, w.factory} {
			t.Run(suspended.Name(), func(t *testing.T) {
				w.endures(t, w.portalSuspended(t, suspended, pause))
			})
		}
	})
}

func (w *world) portalSuspended(t *testing.T, suspended *daemon.Portal, pause time.Duration) fault {
	return fault{
		stall: pause + 3*time.Second, rounds: 3,
		strike: func() {
			suspended.Suspend()
			await.Passing(t, pause)
			suspended.Resume()
		},
		mend: func() { w.waitServer(t, true) },
	}
}

// F16: a portal sleeps for longer than the other waits for it. What was open is reset at both, and does not seem to have
// ended well; soon after it wakes everything works again.
func TestPortalSleepsForTooLong(t *testing.T) {
	t.Parallel()
	const linger, most = 5 * time.Second, 5 * time.Second
	overEach(t, plan{}, func(t *testing.T, w *world) {
		portals := []*daemon.Portal{w.laptop, w.factory}
		for _, p := range portals {
			p.Configure("linger", linger.String())
			p.Restart()
		}
		for range whole(1, 2) {
			for i, asleep := range portals {
				w.laptop.WaitUp("out")
				p := w.out(t)
				w.randomly(t)
				asleep.Suspend()
				ends := []net.Conn{p.Client, p.Service}
				if _, err := io.WriteString(ends[1-i], "are you awake?"); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				await.Reset(t, "application of the portal that is awake", ends[1-i])
				if took, latest := time.Since(start), linger+2*time.Second; took < linger/2 || took > latest {
					t.Errorf("it was reset after %v, want %v, and %v at most", took, linger, latest)
				}
				await.Passing(t, whole(5*time.Second, time.Minute))
				asleep.Resume()
				start = time.Now()
				await.Until(t, "served again", func() error { return served(w.laptop, outPort, w.atFactory) })
				took := time.Since(start)
				t.Logf("served %v after %s woke", took, asleep.Name())
				if took > most {
					t.Errorf("it took %v until a client was served again, want %v at most", took, most)
				}
				await.Limit(t, ends[i])
				// What had reached the machine meanwhile may come first.
				if got, err := io.ReadAll(ends[i]); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the application of the portal that slept got %q, %v; want a reset", got, err)
				}
			}
		}
	})
}

// F17: a portal is killed and started again. Its applications know at once, its peer's as soon as it is back, and it is
// usable then.
func TestPortalKilled(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		var usable times
		for range whole(1, 20) {
			for _, killed := range []*daemon.Portal{w.factory, w.laptop} {
				out, back := w.out(t), w.back(t)
				w.randomly(t)
				killed.Kill()
				own, peers := []net.Conn{out.Client, back.Service}, []net.Conn{out.Service, back.Client}
				if killed == w.factory {
					own, peers = peers, own
				}
				for _, conn := range own {
					await.Reset(t, "application of "+killed.Name(), conn)
				}
				start := time.Now()
				killed.Start()
				for _, conn := range peers {
					await.Reset(t, "application of its peer", conn)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v until the peer's applications knew, want 5 s at most", took)
				}
				await.Until(t, "served again", func() error { return served(w.laptop, outPort, w.atFactory) })
				await.Until(t, "served again", func() error { return served(w.factory, backPort, w.atLaptop) })
				took := time.Since(start)
				t.Logf("%s is usable after %v", killed.Name(), took)
				if took > 3*time.Second {
					t.Errorf("it took %v until %s was usable again, want 3 s at most", took, killed.Name())
				}
				usable = append(usable, took)
			}
		}
		t.Logf("of %d kills of %s: usable after %v", len(usable), t.Name(), usable)
		w.waitOneMind(t) // no relay keeps a port for what was killed
	})
}

// F42: a portal that is asked to stop lets go of all it has, in words: its peer's applications need not wait for it.
func TestPortalAskedToStop(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		for range whole(1, 10) {
			for _, stopped := range []*daemon.Portal{w.factory, w.laptop} {
				p := w.out(t)
				w.randomly(t)
				start := time.Now()
				stopped.Stop() // wants exit status 0
				await.Reset(t, "client", p.Client)
				await.Reset(t, "service", p.Service)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v until both applications knew that %s has stopped, want 5 s at most", took, stopped.Name())
				}
				stopped.Start()
				await.Until(t, "served again", func() error { return served(w.laptop, outPort, w.atFactory) })
			}
		}
	})
}

// F42: who is being served when a portal is asked to stop may finish; nobody else is served any more.
func TestStoppingPortalLetsConnectionsFinish(t *testing.T) {
	t.Parallel()
	const drain = 30 * time.Second
	overEach(t, plan{}, func(t *testing.T, w *world) {
		for _, stopped := range []*daemon.Portal{w.laptop, w.factory} {
			stopped.Configure("drain", drain.String())
			stopped.Process().Stop()
			stopped.Start()
			await.Until(t, "served", func() error { return served(w.laptop, outPort, w.atFactory) })
			p := w.out(t)
			stopped.Process().Signal(syscall.SIGTERM)
			await.Within(t, "closed to others", 5*time.Second, func() error {
				if served(w.laptop, outPort, w.atFactory) == nil {
					return errors.New("a new client is served")
				}
				return nil
			})
			await.RoundTrip(t, p.Client, p.Service)
			start := time.Now()
			finish(t, p)
			select {
			case <-stopped.Process().Done():
			case <-time.After(drain):
				t.Fatalf("%s still runs %v after its last connection has ended", stopped.Name(), drain)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s ended %v after its last connection, want 3 s at most", stopped.Name(), took)
			}
			if status := stopped.Process().Wait(); status != 0 {
				t.Errorf("%s ended with status %d, want 0", stopped.Name(), status)
			}
			stopped.Configure("drain", "0s")
			stopped.Start()
		}
	})
}

// finish ends a connection in the way that both sides mean to.
func finish(t *testing.T, p traffic.Pair) {
	t.Helper()
	for _, end := range []struct{ from, to net.Conn }{{p.Client, p.Service}, {p.Service, p.Client}} {
		if err := end.from.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := end.to.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read %d bytes, %v; want a clean end", n, err)
		}
	}
}

// F30: what a target leaves half open. One half that has ended stays so over a carrier's death, and the other goes on. A
// target that vanishes is found out.
func TestHalfOpenTarget(t *testing.T) {
	t.Parallel()
	overEach(t, plan{}, func(t *testing.T, w *world) {
		t.Run("half-closed", func(t *testing.T) {
			p := w.out(t)
			if err := p.Client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := p.Service.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the service read %d bytes, %v; want a clean end", n, err)
			}
			killed := w.inUse(t)
			killed.Kill()
			const line = "sent when nobody carried it"
			if _, err := io.WriteString(p.Service, line); err != nil {
				t.Fatal(err)
			}
			if err := p.Service.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(p.Client); string(got) != line || err != nil {
				t.Errorf("the client got %q, %v; want %q and a clean end", got, err, line)
			}
			killed.Start()
		})
		if !*full {
			return // it takes minutes
		}
		t.Run("vanished", func(t *testing.T) {
			const most = 2 * time.Minute
			target := w.office.Host("target")
			ln := target.Listen(servicePort)
			forward := policy(w.forwards()...) + fmt.Sprintf("[[forward]]\nname = \"target\"\nfrom = \"laptop tcp://127.0.0.1:%d\"\nto = \"factory tcp://%v:%d\"\n", extraPort, target.Addr(), servicePort)
			w.Apply(forward)
			w.laptop.WaitUp("target")
			p := connect(t, w.laptop, extraPort, ln)
			target.SetRules(topo.DropAll)
			if err := p.Client.SetDeadline(time.Now().Add(most + await.Patience)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			await.Reset(t, "client", p.Client)
			took := time.Since(start)
			t.Logf("found out after %v", took)
			if took > most+5*time.Second {
				t.Errorf("it took %v until the client knew that its target is gone, want %v at most", took, most)
			}
		})
	})
}
