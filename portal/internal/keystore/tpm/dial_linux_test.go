package tpm

import (
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// swtpm takes one caller at a time and lets hardly any wait. On a busy machine, those who have come and gone before are
// still in the way.
func TestSocketThatIsFullForAMomentIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	waiting := 0
	for ; ; waiting++ {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	dialled := make(chan error, 1)
	go func() {
		conn, err := dial(path, time.Now().Add(20*time.Second))
		if err == nil {
			conn.Close()
		}
		dialled <- err
	}()
	select {
	case err := <-dialled:
		t.Fatalf("it is full, with %d who wait: %v", waiting, err)
	case <-time.After(10 * firstPause):
	}
	for range waiting {
		taken, _, err := unix.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(taken)
	}
	if err := <-dialled; err != nil {
		t.Errorf("there is room again: %v", err)
	}
}
