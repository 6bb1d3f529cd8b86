// Package reload has a running daemon read its configuration anew when it gets SIGHUP.
//
// Keys that a daemon can take while it runs (live ones) are applied; others are named, for
// they need a restart. Where the configuration is not valid, all stays as it was.
package reload

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/supervise"
)

// Config is a checked configuration of a role.
type Config interface {
	// Written returns the values of its keys. They are not changed any more.
	Written() conffile.Values
}

// Report says what came of the last reading.
type Report struct {
	At time.Time `json:"at"`
	// Applied are the keys that were taken, and Restart those that differ from what the
	// daemon runs with.
	Applied []string `json:"applied"`
	Restart []string `json:"needs_restart"`
	Error   string   `json:"error,omitempty"` // why nothing was taken
}

// Text says in one line what an operator has to know; it is empty where nothing is left
// to do.
func (r *Report) Text() string {
	switch {
	case r == nil:
		return ""
	case r.Error != "":
		first, _, _ := strings.Cut(r.Error, "\n")
		return "not taken at " + r.At.Local().Format(time.DateTime) + ", all stays as it was: " + first
	case len(r.Restart) > 0:
		return "needs a restart to take: " + strings.Join(r.Restart, ", ")
	}
	return ""
}

// Reloader reads the configuration of one daemon anew. A nil one never does.
type Reloader[C Config] struct {
	live    []string
	signals <-chan os.Signal
	load    func() (C, error)
	log     *slog.Logger

	running conffile.Values // owned by Run: what is in force

	mu   sync.Mutex // guards the following
	last *Report
}

// New returns a Reloader of a daemon that runs with a configuration: it calls load for
// each signal. live are the keys that need no restart.
func New[C Config](running C, live []string, signals <-chan os.Signal, load func() (C, error), log *slog.Logger) *Reloader[C] {
	return &Reloader[C]{live: live, signals: signals, load: load, log: log, running: maps.Clone(running.Written())}
}

// Run reads the configuration at each signal, until ctx is cancelled. apply is called
// where live keys have changed, and takes these, and no others, from the configuration.
func (r *Reloader[C]) Run(ctx context.Context, apply func(C)) error {
	if r == nil {
		return nil
	}
	for {
		select {
		case <-r.signals:
			supervise.Reload(r.log, func() { r.once(apply) })
		case <-ctx.Done():
			return nil
		}
	}
}

// Last returns what came of the last reading; nil: there was none.
func (r *Reloader[C]) Last() *Report {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *Reloader[C]) once(apply func(C)) {
	report := &Report{At: time.Now().UTC().Truncate(time.Second), Applied: []string{}, Restart: []string{}}
	c, err := r.load()
	if err != nil {
		report.Error = err.Error()
		r.log.Error("configuration not taken: all stays as it was", "error", err)
		r.tell(report)
		return
	}
	now := c.Written()
	for _, key := range conffile.Changed(r.running, now) {
		if slices.Contains(r.live, key) {
			report.Applied = append(report.Applied, key)
			r.running[key] = now[key]
		} else {
			report.Restart = append(report.Restart, key)
		}
	}
	if len(report.Applied) > 0 {
		apply(c)
	}
	r.log.Info("configuration read anew", "applied", strings.Join(report.Applied, " "))
	if len(report.Restart) > 0 {
		r.log.Warn("configuration needs a restart to be taken whole", "keys", strings.Join(report.Restart, " "))
	}
	r.tell(report)
}

func (r *Reloader[C]) tell(report *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = report
}
