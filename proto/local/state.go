package local

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/netport/netport/proto/folder"
)

// stateLock is the file in a state folder that its daemon holds.
const stateLock = "lock"

// State is a daemon's state folder, which this process alone works with.
type State struct{ lock *os.File }

// HoldState takes a state folder for this process, until Release; it is made if it is
// missing. A folder that CheckState refuses, or that another daemon holds, is refused:
// two daemons on one state would undo each other's work.
func HoldState(dir string) (*State, error) {
	if err := folder.Make(dir); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	if err := CheckState(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, stateLock), "give this one a state folder of its own")
	if err != nil {
		return nil, fmt.Errorf("hold state %s: %w", dir, err)
	}
	return &State{lock}, nil
}

// Release gives the folder back.
func (s *State) Release() { s.lock.Close() }

// CheckState refuses a state folder in which, or in a folder above which, other users
// can change what is there: they could put files of their own in its place
// (folder.CheckPrivate).
func CheckState(dir string) error {
	if err := folder.CheckPrivate(dir); err != nil {
		return fmt.Errorf("use state %s: %w", dir, err)
	}
	return nil
}
