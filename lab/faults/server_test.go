package faults

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/lab/await"
)

// enrolled is a portal or relay as the server lists it, without what changes by itself.
type enrolled struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	Grants int    `json:"grants"`
}

// state is what must be whole after the server was killed: who is enrolled and what is granted.
func (w *world) state() (s struct {
	Portals []enrolled
	Relays  []enrolled
	Policy  string
}) {
	w.t.Helper()
	for command, list := range map[string]*[]enrolled{"portals": &s.Portals, "relays": &s.Relays} {
		if err := json.Unmarshal([]byte(w.Server.Run(command, "--json")), list); err != nil {
			w.t.Fatal(err)
		}
	}
	s.Policy = w.Server.Run("policy", "show")
	return s
}

// serverOutage is for how long the server is away: the longest fault that traffic has to live through.
func serverOutage() time.Duration {
	if *full {
		return 10 * time.Minute
	}
	return 3 * time.Second
}

// G3 and F9.
func TestServerKilledDisturbsNothing(t *testing.T) {
	w := newWorld(t)
	w.allow(append(w.echoes(), w.other())...)
	traffic := w.startTraffic()
	ln := w.plc.Listen(otherPort)
	before := w.state()

	w.Server.Kill()
	waitServer(t, w.laptop, false)
	waitServer(t, w.factory, false)
	// While it is away: other forwards of portals that have a tunnel.
	for range 5 {
		w.connect(otherEntry, ln)
	}
	await.Passing(t, serverOutage())
	w.connect(otherEntry, ln)

	w.Server.Start()
	waitServer(t, w.laptop, true)
	waitServer(t, w.factory, true)
	w.relay.WaitReady()
	for _, f := range []string{"tcp", "udp", "other"} {
		w.laptop.WaitUp(f)
	}
	w.connect(otherEntry, ln)
	if diff := cmp.Diff(before, w.state()); diff != "" {
		t.Errorf("the server's state changed (-before +after):\n%s", diff)
	}
	traffic.end()
}

// F11: what a policy that was applied while the server was away no longer allows is cut, and nothing else.
func TestServerRestartedWithAnotherPolicyCutsWhatIsNoLongerAllowed(t *testing.T) {
	w := newWorld(t)
	stays, goes := w.echoes()[0], w.other()
	w.allow(stays, goes)
	staying, going := w.connect(entryPort, w.plc.Listen(echoPort)), w.connect(otherEntry, w.plc.Listen(otherPort))

	w.Server.Kill()
	waitServer(t, w.laptop, false)
	waitServer(t, w.factory, false)
	w.Apply(w.policy(stays)) // to the state of the stopped server
	going.alive(t)           // no portal has heard of it yet
	w.Server.Start()
	waitServer(t, w.laptop, true)
	waitServer(t, w.factory, true)
	start := time.Now()
	going.reset(t)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v until what is no longer allowed was cut, want 5 s at most", took)
	}
	w.laptop.WaitGone(goes.name)
	wantRefused(t, w.laptop.Host(), local(otherEntry))
	staying.alive(t)
}
