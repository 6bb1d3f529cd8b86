package command

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/netport/netport/proto/memory"
	"github.com/netport/netport/proto/reserve"
	"github.com/netport/netport/proto/supervise"
)

// Daemon is a program that serves. It outlives the terminal that it was started from:
// SIGHUP, or its service manager, has it read its configuration anew (package reload).
type Daemon struct {
	Log     *slog.Logger
	Hangups <-chan os.Signal // each SIGHUP; those that come while one waits are the same

	unnotify func()
	logging  *logging
	trimming sync.WaitGroup
	stopTrim context.CancelFunc
}

// NewDaemon prepares a program whose log goes to w: it lives within the memory that it may
// use and keeps none of its program there that it does not use, and has its threads. End gives back what it takes.
func NewDaemon(w io.Writer, l Log) (*Daemon, error) {
	logging, err := l.open(w)
	if err != nil {
		return nil, err
	}
	hangups := make(chan os.Signal, 1)
	d := &Daemon{Log: logging.log, Hangups: hangups, unnotify: supervise.Hangups(hangups), logging: logging}
	memory.Fit(d.Log)
	reserve.Threads()
	ctx, stop := context.WithCancel(context.Background())
	d.stopTrim = stop
	d.trimming.Go(func() { memory.Trim(ctx) })
	return d, nil
}

// SetLog has the log written in another way from now on. l is valid (CheckLevel,
// CheckFormat).
func (d *Daemon) SetLog(l Log) { d.logging.set(l) }

// End stops the log when what is in it has been written.
func (d *Daemon) End() {
	d.unnotify()
	d.stopTrim()
	d.trimming.Wait()
	d.logging.queue.flush()
}
