// Package interrupt has a program stop when it is told to: the first SIGINT or
// SIGTERM asks it to, the second does not wait until it has.
package interrupt

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Context returns a context that the first SIGINT or SIGTERM cancels. The second
// ends the process at once, with exit code 128 and the signal's number, as shells
// say it. Only signals that the system has joined into one before the process
// received the first count as one: so it may do with two of a kind, never with a
// SIGINT and a SIGTERM. end gives both signals back to the system.
func Context() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	// The runtime drops what finds no room: both have some, however late they are
	// looked at.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-signals
		cancel()
		if s, ok := <-signals; ok {
			os.Exit(128 + int(s.(syscall.Signal)))
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
