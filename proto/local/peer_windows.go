package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// checkFolder needs the folder to be there; who may write in it is its access
// control list's business.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	return nil
}

func ownedByUs(fs.FileInfo) bool { return true }

// checkAbove leaves that to the access control lists.
func checkAbove(string) error { return nil }

// takeLock holds an exclusive lock on a file for the life of the process. hint says what
// to do where another process has it.
func takeLock(file, hint string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("another daemon runs there; stop it first; or %s", hint)
	}
	return f, nil
}

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
