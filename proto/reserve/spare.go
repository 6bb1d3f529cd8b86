package reserve

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// Spare is a descriptor that is held while there are others, for the one that must be had
// when there are none: where the process's limit was lowered below what it uses, or the
// system has no more for anybody, no number is kept by Check.
type Spare struct {
	mu   sync.Mutex // guards the following
	held *os.File
}

// Hold takes a descriptor, if it is not held already and there is one.
func (s *Spare) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		return
	}
	if f, err := os.Open(os.DevNull); err == nil {
		s.held = f
	}
}

// Lend gives the descriptor up for what has just failed with err, and reports whether that
// is to be tried again at once: it failed for want of a descriptor, and now there is one.
// Hold follows when that one is closed.
func (s *Spare) Lend(err error) bool {
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return false
	}
	return s.give()
}

// Close gives the descriptor back for good.
func (s *Spare) Close() { s.give() }

func (s *Spare) give() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		return false
	}
	s.held.Close()
	s.held = nil
	return true
}
