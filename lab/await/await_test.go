package await_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
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
