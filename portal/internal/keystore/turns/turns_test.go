package turns

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneAtATimeAndIdleAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle, inside, most := 0, 0, 0
		turns := Turns{Idle: func() { idle++ }}
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if err := turns.Do(time.Minute, func() error {
					inside++ // without a lock: the race detector looks on
					most = max(most, inside)
					<-time.After(time.Second)
					inside--
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		if most != 1 || idle != 1 {
			t.Errorf("%d at once, idle %d times", most, idle)
		}
	})
}

func TestNobodyWaitsForADeviceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		back := make(chan struct{})
		start, begun := time.Now(), 0
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				if err := turns.Do(10*time.Second, func() error { begun++; <-back; return nil }); !errors.Is(err, ErrTime) {
					t.Errorf("a device that hangs: %v", err)
				}
			})
		}
		callers.Wait()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("they waited %v", took)
		}
		close(back)
		want := errors.New("a word of the device")
		if err := turns.Do(10*time.Second, func() error { return want }); err != want {
			t.Errorf("when it is back: %v", err)
		}
		if begun != 1 {
			t.Errorf("%d were begun: nobody waited any more for two of them", begun)
		}
	})
}
