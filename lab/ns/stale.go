package ns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The mount at /run of every namespace names the process that made it. No program can change that, as it may its
// environment or its parent.
const runMount = "netport-lab-"

// KillStale kills the programs in namespaces whose maker is gone, and so ends those namespaces. Programs die with their
// maker by themselves; what is left are daemons that had detached.
func KillStale() error {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("kill stale programs: %w", err)
	}
	return killWhere(func(pid string) bool {
		if theirs, err := os.Readlink("/proc/" + pid + "/ns/pid"); err != nil || theirs != own {
			return false // its maker's number means another process here
		}
		mounts, err := os.ReadFile("/proc/" + pid + "/mounts")
		if err != nil {
			return false // ended meanwhile
		}
		_, after, found := strings.Cut("\n"+string(mounts), "\n"+runMount)
		if !found {
			return false
		}
		maker, _, _ := strings.Cut(after, " ")
		_, err = os.Stat("/proc/" + maker)
		return os.IsNotExist(err)
	})
}

// killAll kills all that runs in the namespace. It goes by the namespace, since a daemon may have left its process group
// and its parent.
func (n *Namespace) killAll() error {
	want := "net:[" + strconv.FormatUint(n.inode, 10) + "]"
	return killWhere(func(pid string) bool {
		got, err := os.Readlink("/proc/" + pid + "/ns/net")
		return err == nil && got == want
	})
}

// killWhere kills every other process for which match is true.
func killWhere(match func(pid string) bool) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("kill programs in namespaces: %w", err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || !match(entry.Name()) {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}
