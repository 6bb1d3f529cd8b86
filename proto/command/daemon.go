package command

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Daemon prepares a program that serves: it returns the logger of its log, and
// SIGHUP is logged and changes nothing, so that the program outlives the
// terminal it was started from. end gives both back.
func Daemon(w io.Writer, l Log) (log *slog.Logger, end func(), err error) {
	log, flush, err := l.Logger(w)
	if err != nil {
		return nil, nil, err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangup {
			log.Info("SIGHUP changes nothing: restart the daemon to have its configuration read anew")
		}
	}()
	return log, func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
		flush()
	}, nil
}
