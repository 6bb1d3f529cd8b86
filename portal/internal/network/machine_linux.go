package network

import (
	"os"
	"strings"
)

// machineFiles hold a random number each that the programs of one machine can read and no
// others. The first one is a file of its own in each container that has one; the second,
// of the kernel, is not to be seen in a sandboxed service (ProcSubset=pid).
var machineFiles = []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"}

// Machine returns a name of this machine that is hard to guess, so that two portals which
// know the same one reach each other by loopback addresses; "": not known. What shares a
// machine but not its network, like most containers, is on a machine of its own. The name
// must not be sent to anybody.
func Machine() string {
	// It looks like net:[4026531840], and no two networks of one machine have the same.
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	for _, name := range machineFiles {
		if b, err := os.ReadFile(name); err == nil && len(strings.TrimSpace(string(b))) >= 32 {
			return strings.TrimSpace(string(b)) + " " + namespace
		}
	}
	return ""
}
