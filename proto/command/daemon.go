package command

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/netport/netport/proto/memory"
	"github.com/netport/netport/proto/reserve"
)

// Daemon is a program that serves. It outlives the terminal that it was started from:
// SIGHUP has it read its configuration anew (package reload).
type Daemon struct {
	Log     *slog.Logger
	Hangups <-chan os.Signal // each SIGHUP; those that come while one waits are the same

	signals chan os.Signal
	logging *logging
}

// NewDaemon prepares a program whose log goes to w: it lives within the memory that it may
// use, and has its threads. End gives back what it takes.
func NewDaemon(w io.Writer, l Log) (*Daemon, error) {
	logging, err := l.open(w)
	if err != nil {
		return nil, err
	}
	d := &Daemon{Log: logging.log, signals: make(chan os.Signal, 1), logging: logging}
	d.Hangups = d.signals
	signal.Notify(d.signals, syscall.SIGHUP)
	memory.Fit(d.Log)
	reserve.Threads()
	return d, nil
}

// SetLog has the log written in another way from now on. l is valid (CheckLevel,
// CheckFormat).
func (d *Daemon) SetLog(l Log) { d.logging.set(l) }

// End stops the log when what is in it has been written.
func (d *Daemon) End() {
	signal.Stop(d.signals)
	d.logging.queue.flush()
}
