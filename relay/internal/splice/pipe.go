package splice

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is how much one pipe holds, and so how much one splice moves.
	// 1 MiB is what the kernel grants to an ordinary user.
	pipeSize = 1 << 20
	// maxFree bounds the pipes that are kept for the next who needs one.
	maxFree = 16
)

// pipe is an empty kernel pipe. It holds data only between a fill and the
// drain that follows.
type pipe struct{ r, w int }

// pipes lends pipes to directions that have something to move. A connection
// that is idle holds none, so thousands of them cost no descriptors; and when
// the last pair has gone, so have the pipes.
type pipes struct {
	mu    sync.Mutex // guards the following
	pairs int
	free  []pipe
}

// enter and leave count the pairs that may ask for pipes.
func (s *pipes) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pairs++
}

func (s *pipes) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairs--; s.pairs > 0 {
		return
	}
	for _, p := range s.free {
		p.close()
	}
	s.free = nil
}

func (s *pipes) get() (pipe, error) {
	s.mu.Lock()
	if n := len(s.free); n > 0 {
		p := s.free[n-1]
		s.free = s.free[:n-1]
		s.mu.Unlock()
		return p, nil
	}
	s.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, fmt.Errorf("make a pipe: %w", err)
	}
	// Beyond the user's share of pipe pages this is refused, and the pipe works
	// with what it has.
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return pipe{r: fds[0], w: fds[1]}, nil
}

// put takes an empty pipe back.
func (s *pipes) put(p pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) >= maxFree {
		p.close()
		return
	}
	s.free = append(s.free, p)
}

func (p pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}
