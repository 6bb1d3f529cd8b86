package faults

import (
	"fmt"
	"os"
	"testing"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/traffic"
)

// F40: a daemon that gets no further thread goes on, serves new connections, takes a policy and is asked.
func TestDaemonsOutliveTheirLimitOfThreads(t *testing.T) {
	const connections = 300
	w := newWorld(t)
	w.allow(w.echoes()[0], w.other())
	groups := make(map[*daemon.Daemon]group)
	for _, d := range w.daemons() {
		d.Stop()
		groups[d] = newGroup(t, "pids")
	}
	for _, d := range []*daemon.Daemon{w.Server.Daemon, w.relay.Daemon, w.factory.Daemon, w.laptop.Daemon} {
		groups[d].launch(d)
	}
	w.waitUp("tcp")
	w.waitUp("other")
	ln := w.plc.Listen(otherPort)
	var pairs []traffic.Pair
	for range 10 {
		p := w.connect(otherEntry, ln)
		pairs = append(pairs, traffic.Pair{Client: p.client, Service: p.service})
	}
	running := traffic.Start(t, traffic.Load{Pairs: pairs, Rate: 2e6})
	for d, g := range groups {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.Process().PID()))
		if err != nil {
			t.Fatal(err)
		}
		g.set(int64(len(tasks)), "pids.max")
		t.Logf("%s gets no more than its %d threads", d.Name(), len(tasks))
	}
	defer await.Greet(w.plc.Listen(echoPort))()
	for i := range connections {
		if err := w.served(entryPort); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	w.Apply(w.policy(append(w.many("more"), w.echoes()[0], w.other())...))
	w.laptop.WaitUp("more-299")
	w.Server.Run("status")
	w.relay.Run("status")
	w.factory.Run("status")
	got := running.End()
	t.Log(got)
	if got.Err != nil {
		t.Error(got.Err)
	}
}
