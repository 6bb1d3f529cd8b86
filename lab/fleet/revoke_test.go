package fleet

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// cutLimit is goal G6: from the command's return to the last byte.
const cutLimit = 5 * time.Second

// flood is a connection on which both ends write all the time, and which knows when each has read its last byte.
type flood struct {
	last    [2]atomic.Int64 // nanoseconds of Unix time, at the client and at the service
	running sync.WaitGroup
	ends    []net.Conn
}

func startFlood(t *testing.T, client, service net.Conn) *flood {
	t.Helper()
	f := &flood{ends: []net.Conn{client, service}}
	for i, conn := range f.ends {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		f.running.Go(func() {
			b := make([]byte, 16<<10)
			for {
				n, err := conn.Read(b)
				if n > 0 {
					f.last[i].Store(time.Now().UnixNano())
				}
				if err != nil {
					return
				}
			}
		})
		f.running.Go(func() {
			for b := make([]byte, 1<<10); ; {
				if _, err := conn.Write(b); err != nil {
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		client.Close()
		service.Close()
		f.running.Wait()
	})
	return f
}

// after is how long after a moment the last byte came at either end; negative: before it.
func (f *flood) after(moment time.Time) time.Duration {
	return time.Duration(max(f.last[0].Load(), f.last[1].Load()) - moment.UnixNano())
}

// ended waits until both ends have been told that it is over.
func (f *flood) ended(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		f.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(await.Patience):
		t.Fatal("a connection of a revoked portal is open still")
	}
}

// T23, G6: whoever is revoked loses what runs, wherever the relay forwards it, and cannot come back with what he has.
func TestRevokedPortalLosesWhatRuns(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"userspace", "tc"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorldAt(t, relayIn(mode))
			pair := w.connect(t)
			f := startFlood(t, pair.Client, pair.Service)
			await.Until(t, "carrying bytes", func() error {
				if f.after(time.Now()) < -time.Second {
					return errors.New("nothing comes")
				}
				return nil
			})
			asked := time.Now()
			w.Server.Run("revoke", "portal", "laptop")
			returned := time.Now()
			f.ended(t)
			late := f.after(returned)
			t.Logf("relay in mode %s: the command took %v; the last byte came %v after it had returned, %v after it was given", mode, returned.Sub(asked).Round(time.Millisecond), late.Round(time.Millisecond), f.after(asked).Round(time.Millisecond))
			if late > cutLimit {
				t.Errorf("the last byte came %v after the command had returned, at most %v is allowed", late, cutLimit)
			}
			w.wantNothing(t)

			// The name comes back with a new key, and works at once.
			w.laptop.Stop()
			w.Rejoin(w.laptop)
			w.laptop.WaitUp("out")
			again := w.connect(t)
			again.Client.Close()
			again.Service.Close()
		})
	}
}

func relayIn(mode string) []daemon.Option {
	if mode == "userspace" {
		return []daemon.Option{daemon.Set("mode", mode)}
	}
	return []daemon.Option{daemon.InKernel(mode)}
}

// wantNothing wants that nothing gets through from laptop, whatever it still believes.
func (w *world) wantNothing(t *testing.T) {
	t.Helper()
	conn, err := w.laptop.Host().DialContext(t.Context(), "tcp", local(outPort))
	if err != nil {
		return // it does not even listen
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("let me in"))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a revoked portal's client read %d bytes, %v: want that it is turned away", n, err)
	}
}
