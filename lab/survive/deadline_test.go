package survive

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/link"
	"github.com/netport/netport/lab/topo"
)

// F52: the relay's word that it has made a session arrives at the very moment when the server gives it up. Whichever it is,
// server and relay know the same sessions in the end, and the next client is served.
func TestRelayAnswersAtTheDeadline(t *testing.T) {
	const deadline = 5 * time.Second // of a relay's answer
	w := newWorld(t, plan{carriers: overBoth, relayHosts: []topo.HostOption{topo.Uplink(link.Shape{})}})
	for range whole(1, 50) {
		w.factory.Restart() // no tunnel is left
		w.laptop.WaitUp("out")
		half := deadline/2 - 5*time.Millisecond + time.Duration(w.dice.Int64N(int64(10*time.Millisecond)))
		for _, r := range w.relays {
			r.Host().Reshape(link.Shape{Delay: half}, link.Shape{Delay: half})
		}
		err := served(w.laptop, outPort, w.atFactory)
		t.Logf("answered after %v: the client: %v", 2*half, err)
		for _, r := range w.relays {
			r.Host().Reshape(link.Shape{}, link.Shape{})
		}
		await.Until(t, "served", func() error { return served(w.laptop, outPort, w.atFactory) })
	}
	w.waitOneMind(t)
}

// waitOneMind waits until the server knows just the sessions that the relays hold.
func (w *world) waitOneMind(t *testing.T) {
	t.Helper()
	await.Until(t, "of one mind", func() error {
		known := make(map[string]int) // sessions by relay, as the server knows them
		var sessions []struct{ Relay string }
		if err := json.Unmarshal([]byte(w.Server.Run("sessions", "--json")), &sessions); err != nil {
			return err
		}
		for _, s := range sessions {
			known[s.Relay]++
		}
		for _, r := range w.relays {
			if held := heldSessions(r); held != known[r.Name()] {
				return fmt.Errorf("%s has %d sessions, and the server knows %d", r.Name(), held, known[r.Name()])
			}
		}
		return nil
	})
}

// heldSessions is how many sessions that the server has opened a relay says it holds. Those of tickets have no opener.
func heldSessions(r *daemon.Relay) (n int) {
	var status struct{ Sessions []struct{ Opener string } }
	r.Status(&status)
	for _, s := range status.Sessions {
		if s.Opener != "" {
			n++
		}
	}
	return n
}
