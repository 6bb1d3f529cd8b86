package service

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/netport/netport/proto/folder"
)

// System returns the manager of this machine: of its services for root, and for others of
// their own, which begin when they log in.
func System() (Manager, Words) {
	words := Words{
		System: "macOS",
		Account: `As root: a daemon in /Library/LaunchDaemons, which begins with the machine and runs as the
owner of the configuration file. As an ordinary user: an agent in ~/Library/LaunchAgents,
which begins when that user logs in. The log is portal.log beside the configuration.`,
		Reload: "launchctl kill HUP system/" + label + " (of an agent: gui/$(id -u)/" + label + ")",
	}
	l := &launchd{dir: "/Library/LaunchDaemons", domain: "system", owner: ownerOf, ctl: launchctl}
	if uid := os.Geteuid(); uid != 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "."
		}
		l = &launchd{dir: filepath.Join(home, "Library", "LaunchAgents"), domain: "gui/" + strconv.Itoa(uid), ctl: launchctl}
	}
	return l, words
}

func launchctl(args ...string) (string, error) {
	out, err := exec.Command("/bin/launchctl", args...).CombinedOutput()
	return string(out), err
}

// ownerOf returns the name of a file's owner, "" for root, in whose place nobody else can
// put a file.
func ownerOf(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	if uid == 0 {
		return "", folder.CheckAbove(file)
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", fmt.Errorf("find the owner of %s: %w", file, err)
	}
	return u.Username, nil
}
