package local

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func ownedByUs(fs.FileInfo) bool { return true }

func openLock(file string) (*os.File, error) {
	return os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
}

// lockFile locks a byte far behind the end: nobody reads what is locked.
func lockFile(f *os.File) error {
	far := &windows.Overlapped{Offset: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, far)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errHeld
	}
	return err
}

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
