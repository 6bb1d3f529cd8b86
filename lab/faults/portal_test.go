package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
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
