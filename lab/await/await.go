// Package await waits for what a test expects of programs and connections. What does not come within Patience ends the
// test, and the message says what was missing.
package await

import (
	"context"
	"testing"
	"time"

	"github.com/netport/netport/lab/topo"
)

// Patience bounds whatever is waited for, on a slow machine.
const Patience = topo.Patience

// Until tries again and again until ready returns nil; its last error says what was missing. What names the state that
// is waited for, for instance "ready at the server".
func Until(t testing.TB, what string, ready func() error) {
	t.Helper()
	Within(t, what, Patience, ready)
}

// Within is Until for what must come sooner.
func Within(t testing.TB, what string, limit time.Duration, ready func() error) {
	t.Helper()
	begin := time.Now()
	for late := time.After(limit); ; {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-time.After(Pause(time.Since(begin))):
		case <-late:
			t.Fatalf("not %s within %v: %v", what, limit, err)
		}
	}
}

// Receive takes the next thing from a channel, or nothing from one that is closed. What names that, for instance "the
// client's end".
func Receive[T any](t testing.TB, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(Patience):
		t.Fatalf("%s has not come within %v", what, Patience)
	}
	return v
}

// Return waits until a function has returned, for instance the Wait of a sync.WaitGroup. What names what it waits for.
func Return(t testing.TB, what string, wait func()) {
	t.Helper()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		wait()
	}()
	Receive(t, what, returned)
}

// Pause is how long to wait before a condition is looked at again that has been waited for so long already: a tenth of that,
// within bounds. Looking costs the processor that others wait for.
func Pause(waited time.Duration) time.Duration {
	return min(max(waited/10, 20*time.Millisecond), 200*time.Millisecond)
}

// Passing lets time pass, for a fault that lasts.
func Passing(t testing.TB, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}
