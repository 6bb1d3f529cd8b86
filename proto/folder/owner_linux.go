package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// AsOwner makes root the owner of a folder until the function that it returns is
// called: what a command of root's makes in the folder of a daemon with a user of its
// own is that daemon's then, and no link in that folder leads root elsewhere. Programs
// started meanwhile are the owner's for good. For other users than root, for a folder
// of root's and for one that is not there it changes nothing.
//
// All threads of the process change, so nothing else may go on in it meanwhile.
func AsOwner(dir string) (restore func(), err error) {
	nothing := func() {}
	if os.Geteuid() != 0 {
		return nothing, nil
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	} else if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid == 0 {
		return nothing, nil
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	gid := syscall.Getgid()
	restore = func() {
		// The saved ids are still root's: this cannot be refused.
		if err := errors.Join(syscall.Setresuid(0, 0, 0), syscall.Setresgid(gid, gid, gid), syscall.Setgroups(groups)); err != nil {
			panic(fmt.Sprintf("become root again: %v", err))
		}
	}
	err = syscall.Setgroups(groupsOf(int(st.Uid), int(st.Gid)))
	if err == nil {
		err = syscall.Setresgid(int(st.Gid), int(st.Gid), gid)
	}
	if err == nil {
		err = syscall.Setresuid(int(st.Uid), int(st.Uid), 0)
	}
	if err != nil {
		restore()
		return nil, fmt.Errorf("become user %d, the owner of %s: %w", st.Uid, dir, err)
	}
	return restore, nil
}

// groupsOf returns the groups of a user, as its daemon has them: one may be there for a
// device, such as a TPM.
func groupsOf(uid, gid int) []int {
	groups := []int{gid}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return groups // no name, no groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && n != gid {
			groups = append(groups, n)
		}
	}
	return groups
}
