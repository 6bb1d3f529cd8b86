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

// daemon is a program that serves. It outlives the terminal that it was started from:
// SIGHUP, or its service manager, has it read its configuration anew (package reload).
type daemon struct {
	log     *slog.Logger
	hangups <-chan os.Signal // each SIGHUP; those that come while one waits are the same

	unnotify func()
	logging  *logging
	trimming sync.WaitGroup
	stopTrim context.CancelFunc
}

// newDaemon prepares a program whose log goes to w: it lives within the memory that it may
// use and keeps none of its program there that it does not use, and has its threads. end gives back what it takes.
func newDaemon(w io.Writer, l Log) (*daemon, error) {
	logging, err := l.open(w)
	if err != nil {
		return nil, err
	}
	hangups := make(chan os.Signal, 1)
	d := &daemon{log: logging.log, hangups: hangups, unnotify: supervise.Hangups(hangups), logging: logging}
	memory.Fit(d.log)
	reserve.Threads()
	ctx, stop := context.WithCancel(context.Background())
	d.stopTrim = stop
	d.trimming.Go(func() { memory.Trim(ctx) })
	return d, nil
}

// setLog has the log written in another way from now on. l is valid (CheckLevel,
// CheckFormat).
func (d *daemon) setLog(l Log) { d.logging.set(l) }

// end stops the log when what is in it has been written.
func (d *daemon) end() {
	d.unnotify()
	d.stopTrim()
	d.trimming.Wait()
	d.logging.queue.flush()
}
