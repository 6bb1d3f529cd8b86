package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// errHeld is what lockFile returns where another process has the lock.
var errHeld = errors.New("held by another process")

// takeLock holds an exclusive lock on a file for the life of the process, which the
// system ends with it however it ends. The file holds the number of the process. hint
// says what to do where another one has it.
func takeLock(file, hint string) (*os.File, error) {
	f, err := openLock(file)
	if err != nil {
		return nil, err
	}
	err = lockFile(f)
	if err == nil {
		// After a crash the number is another's, and longer perhaps.
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
		}
	}
	switch {
	case errors.Is(err, errHeld):
		err = fmt.Errorf("another daemon runs there%s; stop it first; or %s", holder(f), hint)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", file, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// holder names the process that has a lock, as far as the file tells.
func holder(f io.Reader) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, bad := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || bad != nil || pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}
