package tpm

import (
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/portal/internal/keystore/tpm/tpmtest"
)

// TestTPMBehindADeviceFile has a terminal for a device, in raw mode, behind which the
// software TPM is: read and written as /dev/tpmrm0.
func TestTPMBehindADeviceFile(t *testing.T) {
	soft := tpmtest.New(t)
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	behind := os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	held, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0) // until then it hangs up after each use
	if err != nil {
		t.Fatal(err)
	}
	mode, err := unix.IoctlGetTermios(int(held.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(held.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}

	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := net.Dial("unix", soft.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for { // a terminal cuts messages as it likes
			command, err := message(behind)
			if err != nil {
				return
			}
			response, err := raw{conn}.Send(command)
			if err == nil {
				_, err = behind.Write(response)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	m := New(path)
	_, file := made(t, m)
	key, err := m.Load(file) // a device file of the kernel serves several users apart, this one does not
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(key); err != nil {
		t.Error(err)
	}
	held.Close() // with the last of this side the other one ends
	serving.Wait()
	behind.Close()
	if list := objects(t, soft, transient); len(list) > 0 {
		t.Errorf("left in the TPM: %#x", list)
	}
}
