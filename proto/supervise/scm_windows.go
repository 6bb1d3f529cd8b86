package supervise

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/windows/svc"
)

const (
	accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown | svc.AcceptParamChange
	// startHint and stopHint are how long the manager may wait for the next sign while a
	// service starts and stops: a daemon that stops lets connections finish for a minute
	// at most.
	startHint, stopHint = 30 * time.Second, 90 * time.Second
	// exitFailed is the exit code of a service whose program has failed to begin with
	// the manager.
	exitFailed = 1
)

// service is this process where the service control manager has started it.
type service struct {
	ctx    context.Context
	stderr io.Writer
	run    func(ctx context.Context, stderr io.Writer) int

	status chan svc.Status // what the manager is to hear
	over   chan struct{}   // closed when run has returned

	mu      sync.Mutex // guards hangups
	hangups chan os.Signal
}

// current is the service that this process is; nil: it is none.
var current atomic.Pointer[service]

// Main runs a program and returns its exit code. Where the service control manager has
// started it, it is the service that the manager asks for: it is ready, and stops, as Run
// is told, ctx ends when the manager wants it to stop, and what is written to stderr goes
// to the event log under the program's name.
func Main(ctx context.Context, name string, stderr io.Writer, run func(ctx context.Context, stderr io.Writer) int) int {
	if is, err := svc.IsWindowsService(); err != nil || !is {
		return run(ctx, stderr)
	}
	s := &service{ctx: ctx, stderr: stderr, run: run, status: make(chan svc.Status), over: make(chan struct{})}
	if events, err := OpenEvents(name); err == nil {
		defer events.Close()
		s.stderr = events
	}
	current.Store(s)
	if err := svc.Run(name, s); err != nil {
		fmt.Fprintf(s.stderr, "%s: serve the service control manager: %v\n", name, err)
		return exitFailed
	}
	return 0 // the manager has the exit code
}

// Execute implements svc.Handler.
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, told chan<- svc.Status) (specific bool, code uint32) {
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	told <- svc.Status{State: svc.StartPending, WaitHint: milliseconds(startHint)}
	var exit int
	go func() {
		defer close(s.over)
		exit = s.run(ctx, s.stderr)
	}()
	last := svc.Status{State: svc.StartPending}
	for {
		select {
		case status := <-s.status:
			if last.State == svc.StopPending && status.State != svc.StopPending {
				continue // it was said a moment before
			}
			if status.State == svc.StartPending || status.State == svc.StopPending {
				status.CheckPoint = last.CheckPoint + 1
			}
			last = status
			told <- status
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				told <- r.CurrentStatus
			case svc.ParamChange:
				s.hangUp()
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				last = stopStatus()
				told <- last
				stop()
			}
		case <-s.over:
			// Whatever is not 0 has the manager do what it does after failures.
			return true, uint32(exit)
		}
	}
}

func stopStatus() svc.Status {
	return svc.Status{State: svc.StopPending, WaitHint: milliseconds(stopHint)}
}

func milliseconds(d time.Duration) uint32 { return uint32(d.Milliseconds()) }

// hangUp has the daemon read its configuration anew.
func (s *service) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.hangups <- syscall.SIGHUP:
	default:
	}
}

// Hangups has whoever wants a daemon to read its configuration anew say so as SIGHUP on c,
// until stop is called: "sc control NAME paramchange", of a service. One that finds no
// room in c is dropped.
func Hangups(c chan os.Signal) (stop func()) {
	s := current.Load()
	if s == nil {
		return func() {}
	}
	s.listen(c)
	return func() { s.listen(nil) }
}

func (s *service) listen(c chan os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangups = c
}

// find returns the manager that has started this process; nil: none has.
func find(*slog.Logger) *service { return current.Load() }

// watchdog returns 0: the manager has none.
func (s *service) watchdog() time.Duration { return 0 }

// tell tells what a daemon is at. There is no place for a line for people.
func (s *service) tell(p phase, _ string) {
	var status svc.Status
	switch p {
	case starting:
		status = svc.Status{State: svc.StartPending, WaitHint: milliseconds(startHint)}
	case begun:
		status = svc.Status{State: svc.Running, Accepts: accepts}
	case stopping:
		status = stopStatus()
	default:
		return // it does not change what the manager knows
	}
	select {
	case s.status <- status:
	case <-s.over:
	}
}
