package faults

import (
	"strings"
	"sync"
	"testing"

	"github.com/netport/netport/lab/daemon"
)

// A command does not wait for ever for a daemon that is stopped: it fails, and says in one line what was asked and what may
// be done. What the daemon carries goes on when it does.
func TestCommandsGiveUpAStoppedDaemon(t *testing.T) {
	w := newWorld(t)
	w.allow(w.other())
	ln := w.plc.Listen(otherPort)
	p := w.connect(otherEntry, ln)
	daemons := w.daemons()
	for _, d := range daemons {
		d.Suspend()
	}
	var asking sync.WaitGroup
	for _, d := range daemons {
		cmd := d.Command("status")
		asking.Go(func() { wantGivenUp(t, d, cmd.CombinedOutput) })
	}
	asking.Wait()
	for _, d := range daemons {
		d.Resume()
	}
	p.alive(t)
	for _, d := range daemons {
		d.Run("status")
	}
	waitServer(t, w.laptop, true)
	w.laptop.WaitUp("other")
	w.connect(otherEntry, ln)
}

// wantGivenUp wants a command to fail for want of a sign of life.
func wantGivenUp(t *testing.T, d *daemon.Daemon, run func() ([]byte, error)) {
	b, err := run()
	out := string(b)
	if exitCode(err) != 1 || strings.Count(out, "\n") != 1 ||
		!strings.Contains(out, "ask the daemon at "+d.Dir()) || !strings.Contains(out, "no sign of life") || !strings.Contains(out, "restart") {
		t.Errorf("%s is stopped, and status ends with %v:\n%s", d.Name(), err, out)
	}
}
