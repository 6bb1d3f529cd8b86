package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// relayInUse is the name of the relay that laptop's tunnel to factory uses.
func (w *world) relayInUse() string {
	w.t.Helper()
	for _, tunnel := range w.laptop.Status().Tunnels {
		if tunnel.Peer == "factory" && tunnel.Up {
			return tunnel.Relay
		}
	}
	w.t.Fatalf("there is no tunnel: %+v", w.laptop.Status())
	return ""
}

// Streams wait for a way back as long as their portals' owners say, once their carriers are gone, and are reset then, at both
// applications: never is it a clean end. A client that comes when there is no relay is turned away, and served as soon as
// there is one.
func TestWithoutAnyRelayStreamsEndWithAReset(t *testing.T) {
	t.Parallel()
	const linger = 3 * time.Second
	for name, lose := range map[string]func(w *world){
		"killed": func(w *world) { w.relay.Kill() },
		"silent": func(w *world) { w.relay.Host().SetRules(topo.DropAll) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t)
			patient := daemon.Set("linger", linger.String())
			w.laptop, w.factory = w.Portal(w.home.Host("laptop"), patient), w.Portal(w.office.Host("factory"), patient)
			ln := w.plc.Listen(echoPort)
			w.allow(w.echoes()[0])
			p := w.connect(entryPort, ln)
			const never = "never arrives"
			start := time.Now()
			lose(w)
			for _, conn := range []io.Writer{p.client, p.service} {
				if _, err := io.WriteString(conn, never); err != nil {
					t.Fatal(err)
				}
			}
			p.reset(t)
			took := time.Since(start)
			t.Logf("reset after %v", took)
			if took < linger || took > linger+2*time.Second {
				t.Errorf("the streams were reset after %v, want %v since the peer was last heard, and no more than the time to notice", took, linger)
			}
			if name == "killed" {
				await.Until(t, "noticed by the server that no relay is there", func() error {
					if out := w.Server.Run("status"); !strings.Contains(out, "0 of 1 ready") {
						return fmt.Errorf("it says\n%s", out)
					}
					return nil
				})
				w.wantTurnedAway(entryPort, 3*time.Second)
				wantExplained(t, w.laptop, "tcp", "It fails at the relay: none is connected to the server")
				w.relay.Start()
			}
			w.relay.Host().SetRules()
			w.relay.WaitReady()
			defer await.Greet(ln)()
			await.Until(t, "served by the relay that is back", func() error { return w.served(entryPort) })
		})
	}
}

// served reports why a client on laptop does not reach a service that greets.
func (w *world) served(port uint16) error {
	return await.Greeted(w.t.Context(), w.laptop.Host(), local(port))
}

// relayIsReady reports why the server would not use the relay.
func (w *world) relayIsReady(name string) error {
	var relays []struct {
		Name  string
		State struct{ Ready bool }
	}
	if err := json.Unmarshal([]byte(w.Server.Run("relays", "--json")), &relays); err != nil {
		return err
	}
	for _, r := range relays {
		if r.Name == name && r.State.Ready {
			return nil
		}
	}
	return fmt.Errorf("the server has %+v", relays)
}
