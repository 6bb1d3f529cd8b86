// Package supervise tells the service manager that has started a daemon how it is: ready,
// stopping, what it does, and for a watchdog, that it is alive; and has the daemon do what
// the manager asks for. There are systemd (sd_notify(3), service units of Type=notify) and
// the service control manager of Windows. Where no manager listens, as under launchd, a
// daemon lives by signals alone.
package supervise

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// readyInterval is how often a daemon that is not ready yet is looked at.
	readyInterval = 50 * time.Millisecond
	// lookInterval is how often one that is ready is looked at, at least, so that
	// what the manager shows of it is not old.
	lookInterval = 10 * time.Second
	// looksPerWatchdog is how often it is looked at in the time after which the
	// watchdog would end it.
	looksPerWatchdog = 4
)

// phase is what a manager is told of a daemon.
type phase int

const (
	starting  phase = iota // was looked at, and is not ready
	begun                  // is ready from now on
	alive                  // was looked at, and is well
	reloading              // reads its configuration anew
	reloaded               // is ready again
	stopping
)

// Run tells the service manager of a daemon until ctx is cancelled, and then that it
// stops.
//
// look looks at the daemon: it takes the locks of its parts and looks whether their
// loops go round, and returns a line for people. The first time that it returns no
// error the daemon is ready. After that its watchdog (WatchdogSec) is kept only by looks
// that return none: a daemon whose look hangs or fails for that long is started anew.
func Run(ctx context.Context, log *slog.Logger, look func() (status string, err error)) {
	m := find(log)
	if m == nil {
		return
	}
	interval := lookInterval
	if watchdog := m.watchdog(); watchdog > 0 {
		interval = min(interval, watchdog/looksPerWatchdog)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := ""
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			ready.Store(false)
			m.tell(stopping, "stopping")
			return
		}
		status, err := look()
		switch {
		case err == nil && !ready.Load():
			failed = ""
			m.tell(begun, status)
			ready.Store(true)
		case err == nil:
			failed = ""
			m.tell(alive, status)
		case !ready.Load():
			m.tell(starting, err.Error())
		case err.Error() != failed:
			failed = err.Error()
			log.Error("the daemon is not well: the service manager's watchdog is not kept", "error", err)
		}
		if ready.Load() {
			timer.Reset(interval)
		} else {
			timer.Reset(readyInterval)
		}
	}
}

// ready is whether the service manager knows this process as ready.
var ready atomic.Bool

// Reload tells the service manager that the daemon reads its configuration anew, for as
// long as do does that. A daemon that is not ready yet, or stops, only does it.
func Reload(log *slog.Logger, do func()) {
	m := find(log)
	if m == nil || !ready.Load() {
		do()
		return
	}
	m.tell(reloading, "reading the configuration anew")
	do()
	m.tell(reloaded, "the configuration was read anew")
}
