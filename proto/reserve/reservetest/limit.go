//go:build unix

// Package reservetest takes descriptors away from a test's own process.
package reservetest

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// Limit lets the test have so many descriptors.
func Limit(t *testing.T, most uint64) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
}

// Exhaust lets the test have no descriptor but those that it has, until one of those that
// it returns is closed.
func Exhaust(t *testing.T) (taken []*os.File) {
	t.Helper()
	Limit(t, 128)
	t.Cleanup(func() {
		for _, f := range taken {
			f.Close()
		}
	})
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			return taken
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, f)
	}
}
