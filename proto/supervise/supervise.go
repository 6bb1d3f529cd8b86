// Package supervise tells the service manager that has started a daemon how it is
// (systemd's sd_notify(3), service units of Type=notify): ready, stopping, what it
// does, and for a watchdog, that it is alive. Where no manager listens, as on other
// systems, it does nothing.
package supervise

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
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

// Run tells the service manager of a daemon until ctx is cancelled, and then that it
// stops.
//
// look looks at the daemon: it takes the locks of its parts and looks whether their
// loops go round, and returns a line for people. The first time that it returns no
// error the daemon is ready. After that its watchdog (WatchdogSec) is kept only by looks
// that return none: a daemon whose look hangs or fails for that long is started anew.
func Run(ctx context.Context, log *slog.Logger, look func() (status string, err error)) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	m := &manager{log: log}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not kept", "error", err)
	}
	interval := lookInterval
	if watchdog > 0 {
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
			m.tell(daemon.SdNotifyStopping, "stopping")
			return
		}
		status, err := look()
		switch {
		case err == nil && !ready.Load():
			failed = ""
			m.tell(daemon.SdNotifyReady+"\n"+daemon.SdNotifyWatchdog, status)
			ready.Store(true)
		case err == nil:
			failed = ""
			m.tell(daemon.SdNotifyWatchdog, status)
		case ready.Load() && err.Error() != failed:
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
	if !ready.Load() {
		do()
		return
	}
	m := &manager{log: log}
	m.tell(daemon.SdNotifyReloading+"\n"+strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "reading the configuration anew")
	do()
	m.tell(daemon.SdNotifyReady, "the configuration was read anew")
}

// manager is who has started the daemon.
type manager struct {
	log  *slog.Logger
	deaf bool // it was said that it does not listen
}

func (m *manager) tell(state, status string) {
	_, err := daemon.SdNotify(false, state+"\nSTATUS="+status)
	if err != nil && !m.deaf {
		m.deaf = true
		m.log.Warn("the service manager is not told how the daemon is", "error", err)
	}
}
