package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
)

// sessions is how many sessions the server has.
func (w *world) sessions() int {
	w.t.Helper()
	var list []any
	if err := json.Unmarshal([]byte(w.Server.Run("sessions", "--json")), &list); err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}

// F17: what ran over a portal that was killed ends with a reset at the other side's application, and the portal that is
// started again is usable at once.
func TestPortalKilledIsCleanedUpAndComesBack(t *testing.T) {
	w := newWorld(t)
	w.allow(w.echoes()[0])
	for _, killed := range []*daemon.Portal{w.factory, w.laptop} {
		t.Run(killed.Name(), func(t *testing.T) {
			ln := w.plc.Listen(echoPort)
			defer ln.Close()
			p := w.connect(entryPort, ln)
			killed.Kill()
			start := time.Now()
			p.reset(t) // the kernel of the killed one's machine resets its side
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v until both applications knew, want 5 s at most", took)
			}
			start = time.Now()
			killed.Start()
			w.laptop.WaitUp("tcp")
			welcome(ln)
			await.Until(t, "served again", func() error { return w.welcomed(entryPort) })
			took := time.Since(start)
			t.Logf("usable after %v", took)
			if took > 3*time.Second {
				t.Errorf("it took %v until the forward was usable again, want 3 s at most", took)
			}
		})
	}
	if n := w.sessions(); n != 1 {
		t.Errorf("the server has %d sessions, want the one in use", n)
	}
}

// F15, shortened: a portal that is suspended holds its peer's streams up and loses nothing.
func TestSuspendedPortalLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.allow(w.echoes()[0])
	ln := w.plc.Listen(echoPort)
	for _, stopped := range []*daemon.Portal{w.factory, w.laptop} {
		p := w.connect(entryPort, ln)
		stopped.Process().Signal(syscall.SIGSTOP)
		sent := "sent while the portal was suspended"
		if _, err := p.client.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		await.Passing(t, 10*time.Second)
		stopped.Process().Signal(syscall.SIGCONT)
		start := time.Now()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(p.service, got); err != nil || string(got) != sent {
			t.Errorf("%s suspended: the service got %q, %v; want %q", stopped.Name(), got, err, sent)
			continue
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s suspended: it took %v to go on, want 3 s at most", stopped.Name(), took)
		}
		p.alive(t)
		waitServer(t, stopped, true)
	}
}

// F42: a portal that is asked to stop takes its listeners and sockets with it and leaves nothing at its peer, at the
// server or at the relay.
func TestStoppedPortalLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	ln := w.plc.Listen(echoPort)
	socket := filepath.Join(w.laptop.Dir(), "app.sock")
	w.allow(w.echoes()[0], forward{"unix", "unix://" + socket, w.service("tcp", echoPort)})
	for _, name := range []string{socket, filepath.Join(w.laptop.Dir(), "state", "portal.sock")} {
		if _, err := os.Lstat(name); err != nil {
			t.Fatalf("the portal runs without its socket: %v", err)
		}
	}
	p := w.connect(entryPort, ln)

	w.laptop.Stop() // wants exit status 0
	await.Reset(t, "service", p.service)
	await.Reset(t, "client", p.client)
	wantRefused(t, w.laptop.Host(), local(entryPort))
	for _, name := range []string{socket, filepath.Join(w.laptop.Dir(), "state", "portal.sock")} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	await.Within(t, "cleaned up", 5*time.Second, func() error {
		if n := w.sessions(); n > 0 {
			return fmt.Errorf("the server has %d sessions", n)
		}
		for _, tunnel := range w.factory.Status().Tunnels {
			return fmt.Errorf("factory has a tunnel: %+v", tunnel)
		}
		if n := len(w.relayStatus().Sessions); n > 0 {
			return fmt.Errorf("the relay has %d sessions", n)
		}
		return nil
	})
	// F42 for the others: the relay and the server stop with status 0, too.
	w.relay.Stop()
	w.Server.Stop()
}

// relayStatus is what the relay says of itself, as far as it is looked at here.
type relayStatus struct {
	Sessions []struct {
		Port  uint16 `json:"port"`
		Bound int    `json:"udp_bound"` // legs
	} `json:"sessions"`
}

func (w *world) relayStatus() (s relayStatus) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.relay.Run("status", "--json")), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}
