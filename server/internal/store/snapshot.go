package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// snapshotTries is how often a state that changes while it is copied is copied again.
const snapshotTries = 5

// Snapshot copies the state in a file, which another process may have open, to a new file. It
// takes no lock and changes nothing: pages that the meta pages lead to are not written
// to, so the copy is whole if those stayed the same while it was made.
func Snapshot(file, to string) error {
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read state %s: %w", file, cause(err))
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("copy state %s: %w", file, err)
	}
	defer out.Close()
	metas := func() ([]byte, error) {
		b := make([]byte, 2*largestPage) // both, whatever the size of a page
		n, err := in.ReadAt(b, 0)
		if err == io.EOF {
			err = nil
		}
		return b[:n], err
	}
	for range snapshotTries {
		before, err := metas()
		if err != nil {
			return fmt.Errorf("read state %s: %w", file, cause(err))
		}
		if err := errors.Join(rewind(in), rewind(out), out.Truncate(0)); err != nil {
			return fmt.Errorf("copy state %s: %w", file, err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return fmt.Errorf("copy state %s: %w", file, err)
		}
		after, err := metas()
		if err != nil {
			return fmt.Errorf("read state %s: %w", file, cause(err))
		}
		if bytes.Equal(before, after) {
			return nil
		}
	}
	return fmt.Errorf("copy state %s: it changed each time; try it again", file)
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}
