package main

import (
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const work = 50 * time.Millisecond

func spentSoFar(t *testing.T, clock cpu) time.Duration {
	t.Helper()
	spent, err := clock.spent()
	if err != nil {
		t.Fatal(err)
	}
	return spent
}

func newTestCPU(t *testing.T, others ...int) cpu {
	t.Helper()
	clock, err := newCPU(others...)
	if err != nil {
		t.Fatal(err)
	}
	return clock
}

func TestProcessorTimeOfThisProgramIsCounted(t *testing.T) {
	clock := newTestCPU(t)
	before := spentSoFar(t, clock)
	thread := func() time.Duration {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
			t.Fatal(err)
		}
		return time.Duration(now.Nano())
	}
	for end := thread() + work; thread() < end; {
	}
	if got := spentSoFar(t, clock) - before; got < work {
		t.Errorf("%v were counted, want at least %v", got, work)
	}
}

func TestProcessorTimeOfAnotherProgramIsCountedIfAskedFor(t *testing.T) {
	other := exec.Command("sh", "-c", "while :; do :; done")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait() // it is killed
	defer other.Process.Kill()
	both, alone := newTestCPU(t, other.Process.Pid), newTestCPU(t)
	for late := time.Now().Add(patience); spentSoFar(t, both)-spentSoFar(t, alone) < work; {
		if time.Now().After(late) {
			t.Fatalf("a program that is always busy took less than %v", work)
		}
	}
}
