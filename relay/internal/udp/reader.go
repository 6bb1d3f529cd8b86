package udp

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pause is how long a busy reader lets packets gather before it looks
	// again. Without it, it would wake for every one or two of them, and waking
	// and sending cost several times what a packet more in the batch does: it
	// made the relay 4 times as fast with one flow and with a hundred. A reader
	// is busy when its last round had several packets and, at that rate, at
	// least one more comes in a pause; a packet that comes alone is not delayed.
	pause = 50 * time.Microsecond
	// maxReady is how many sockets with packets one system call tells of.
	maxReady = 64
	// wakeID stands for the reader's own eventfd among its sockets.
	wakeID = 0
)

// reader serves a share of the relay's sockets from one thread: it waits for
// any of them with epoll, and owns the one batch it works with. The runtime's
// poller would wake a goroutine for each socket.
type reader struct {
	relay       *Relay
	epoll, wake int // descriptors
	batch       *batch

	mu      sync.Mutex // guards the following
	sockets map[int32]*socket
	last    int32
}

func newReader(r *Relay) (*reader, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a UDP reader: %w", os.NewSyscallError("epoll_create1", err))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make a UDP reader: %w", os.NewSyscallError("eventfd", err))
	}
	d := &reader{relay: r, epoll: epoll, wake: wake, batch: newBatch(), sockets: make(map[int32]*socket)}
	if err := d.watch(wake, wakeID); err != nil {
		d.close()
		return nil, fmt.Errorf("make a UDP reader: %w", err)
	}
	return d, nil
}

func (d *reader) watch(fd int, id int32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(d.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: id}))
}

// add gives the reader a socket. remove takes it back, before it is closed.
func (d *reader) add(s *socket) (remove func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.last++; d.last == wakeID || d.sockets[d.last] != nil; d.last++ {
	}
	id := d.last
	if err := d.watch(s.fd, id); err != nil {
		return nil, err
	}
	d.sockets[id] = s
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.sockets, id)
	}, nil
}

// run reads until stop is called.
func (d *reader) run() {
	// One thread, so that its timer slack is its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	var ready [maxReady]unix.EpollEvent
	before := time.Now()
	for {
		n, err := unix.EpollWait(d.epoll, ready[:], -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			d.relay.cfg.Log.Error("UDP reader stops", "error", os.NewSyscallError("epoll_wait", err))
			return
		}
		packets := 0
		for _, e := range ready[:n] {
			if e.Fd == wakeID {
				return
			}
			packets += d.read(e.Fd)
		}
		now := time.Now()
		if packets > 1 && time.Duration(packets)*pause > now.Sub(before) {
			rest := unix.NsecToTimespec(int64(pause))
			unix.Nanosleep(&rest, nil)
			now = time.Now()
		}
		before = now
	}
}

// read takes what one socket has, once, and returns how many packets that were.
func (d *reader) read(id int32) int {
	d.mu.Lock()
	s := d.sockets[id]
	d.mu.Unlock()
	if s == nil {
		return 0 // closed since
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	s.receive(d.batch)
	return d.relay.forward(s, d.batch)
}

func (d *reader) stop() { unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// close gives back what the reader holds, after run has returned.
func (d *reader) close() {
	unix.Close(d.epoll)
	unix.Close(d.wake)
}
