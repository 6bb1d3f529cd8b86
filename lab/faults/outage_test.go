package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/topo"
)

// F12: a portal that starts first while the server is away has no grants. It says so, turns nobody but itself away, and
// works as soon as the server is back.
func TestPortalStartedWithoutServerSaysSoAndWaits(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	w.Server.Kill()
	w.laptop.Kill()
	if err := os.RemoveAll(filepath.Join(w.laptop.Dir(), "state")); err != nil {
		t.Fatal(err)
	}
	w.laptop.Host().Start(w.laptop.Command("run"))
	await.Until(t, "answered by laptop", func() error {
		out, err := w.laptop.Command("status").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	wantRefused(t, w.laptop.Host(), local(otherEntry))
	wantExplained(t, w.laptop, "other", "this portal has no grants: it has not reached a server since it started")
	wantExplained(t, w.laptop, "other", "It fails between laptop and the server")
	w.Server.Start()
	w.waitUp("other")
	w.connect(otherEntry, w.plc.Listen(otherPort))
}

// F31: a connection to the server that is dead without a word is found out as soon as there is something to say, and the
// new one takes the place of the old.
func TestSilentServerIsNoticedWhenThereIsSomethingToSay(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	w.factory.Restart() // no tunnel: the next client needs the server
	w.laptop.WaitUp("other")

	w.Server.Host().SetRules(topo.DropAll)
	start := time.Now()
	w.wantTurnedAway(otherEntry, 7*time.Second)
	waitServer(t, w.laptop, false)
	took := time.Since(start)
	t.Logf("noticed after %v", took)
	if most := 7 * time.Second; took > most {
		t.Errorf("it took %v until the portal knew that the server is gone, want 5 s and the time to say it, %v at most", took, most)
	}
	w.Server.Host().SetRules()
	waitServer(t, w.laptop, true)
	w.laptop.WaitUp("other")
	w.connect(otherEntry, w.plc.Listen(otherPort))
	wantOnline(t, w)
}

// F53: the server dies when the relay has made a session and the portals have not heard of it. The relay does not keep it,
// who waits gets a tunnel without the server, by a ticket, and the next session works at once.
func TestServerKilledWhileASessionIsMadeLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	w.factory.Restart() // no tunnel
	w.laptop.WaitUp("other")
	ln := w.plc.Listen(otherPort)

	w.relay.Suspend()
	client := w.dial("tcp", otherEntry)
	await.Until(t, "asked of the relay", func() error {
		if w.sessions() == 0 {
			return fmt.Errorf("the server has no session")
		}
		return nil
	})
	w.Server.Kill()
	start := time.Now()
	w.relay.Resume()
	p := pair{client, await.Accept(t, ln)}
	p.alive(t)
	took, most := time.Since(start), 2*time.Second
	t.Logf("served by a ticket after %v", took)
	if took > most {
		t.Errorf("the client was served after %v, want %v at most", took, most)
	}
	if *full { // package lease of the relay tests the same without waiting
		await.Within(t, "rid of the session", 32*time.Second, func() error {
			if n := len(w.relayStatus().Sessions); n > 1 { // the ticket's
				return fmt.Errorf("the relay holds %d sessions", n)
			}
			return nil
		})
	}
	w.Server.Start()
	w.relay.WaitReady()
	waitServer(t, w.laptop, true)
	waitServer(t, w.factory, true)
	p.alive(t)
	w.factory.Restart() // the tunnel of the ticket is gone
	w.laptop.WaitUp("other")
	w.connect(otherEntry, ln)
	if n := w.sessions(); n != 1 {
		t.Errorf("the server has %d sessions, want that of the new tunnel", n)
	}
}
