package await_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/lab/await"
)

// failing is a test that records why it was ended, and is not.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWithinGoesOnAsSoonAsItIsReady(t *testing.T) {
	tries := 0
	await.Until(t, "tried three times", func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if tries != 3 {
		t.Errorf("tried %d times, want 3", tries)
	}
}

func TestWithinSaysWhatWasMissing(t *testing.T) {
	f := &failing{TB: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		await.Within(f, "warm", 30*time.Millisecond, func() error { return errors.New("it is 3 degrees") })
	}()
	<-ended
	if !strings.Contains(f.said, "not warm within 30ms: it is 3 degrees") {
		t.Errorf("it said %q", f.said)
	}
}

func TestReceiveSaysWhatHasNotCome(t *testing.T) {
	if got := await.Receive(t, "a number", func() <-chan int { c := make(chan int, 1); c <- 7; return c }()); got != 7 {
		t.Errorf("received %d, want 7", got)
	}
	synctest.Test(t, func(t *testing.T) {
		f, never := &failing{TB: t}, make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			await.Return(f, "the last client", func() { <-never })
		}()
		<-ended
		close(never)
		if want := "the last client has not come within 1m0s"; f.said != want {
			t.Errorf("it said %q, want %q", f.said, want)
		}
	})
}
