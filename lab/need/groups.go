package need

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const groups = "/sys/fs/cgroup"

// Groups wants the right to make control groups with a controller (memory, pids), of version 1 or 2. It returns the folder
// to make them in.
func Groups(t testing.TB, controller string) string {
	t.Helper()
	dir, err := groupsOf(controller)
	if err == nil {
		var probe string
		if probe, err = os.MkdirTemp(dir, "netport-need-"); err == nil {
			err = os.Remove(probe)
		}
	}
	if err != nil {
		missing(t, "control groups for "+controller+" ("+err.Error()+")")
	}
	return dir
}

func groupsOf(controller string) (string, error) {
	if dir := filepath.Join(groups, controller); isFolder(dir) {
		return dir, nil // version 1 has a tree for each
	}
	enabled, err := os.ReadFile(filepath.Join(groups, "cgroup.subtree_control"))
	if err != nil {
		return "", err
	}
	for _, c := range strings.Fields(string(enabled)) {
		if c == controller {
			return groups, nil
		}
	}
	return "", fmt.Errorf("only %s are there", strings.TrimSpace(string(enabled)))
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
