//go:build !windows

package supervise

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// manager is systemd.
type manager struct {
	log  *slog.Logger
	deaf bool // it was said that it does not listen
}

// find returns the manager that has started this process; nil: none has that listens.
func find(log *slog.Logger) *manager {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &manager{log: log}
}

// watchdog returns how long the manager waits for a sign of life; 0: for ever.
func (m *manager) watchdog() time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog is not kept", "error", err)
	}
	return d
}

// tell tells what a daemon is at, and a line for people.
func (m *manager) tell(p phase, status string) {
	var state string
	switch p {
	case starting:
		return // it waits for as long as the unit says
	case begun:
		state = daemon.SdNotifyReady + "\n" + daemon.SdNotifyWatchdog
	case alive:
		state = daemon.SdNotifyWatchdog
	case reloading:
		state = daemon.SdNotifyReloading + "\n" + strings.TrimSpace(daemon.SdNotifyMonotonicUsec())
	case reloaded:
		state = daemon.SdNotifyReady
	case stopping:
		state = daemon.SdNotifyStopping
	}
	_, err := daemon.SdNotify(false, state+"\nSTATUS="+status)
	if err != nil && !m.deaf {
		m.deaf = true
		m.log.Warn("the service manager is not told how the daemon is", "error", err)
	}
}

// Main runs a program and returns its exit code. Windows alone starts services in
// another way than programs.
func Main(ctx context.Context, _ string, stderr io.Writer, run func(ctx context.Context, stderr io.Writer) int) int {
	return run(ctx, stderr)
}

// Hangups has whoever wants a daemon to read its configuration anew say so as SIGHUP on c,
// until stop is called. One that finds no room in c is dropped.
func Hangups(c chan os.Signal) (stop func()) {
	signal.Notify(c, syscall.SIGHUP)
	return func() { signal.Stop(c) }
}
