package kernel

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/netport/netport/lab/daemon"
)

// held is what a relay's process has of the system.
type held struct{ descriptors, entries int }

var mapID = regexp.MustCompile(`(?m)^map_id:\s*(\d+)$`)

// heldBy counts a relay's open files, and the entries of the kernel's tables among them.
func heldBy(t *testing.T, relay *daemon.Relay) (h held) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo/", relay.Process().PID())
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(list)
	tables := 0
	for _, fd := range list {
		info, err := os.ReadFile(dir + fd.Name())
		found := mapID.FindSubmatch(info)
		if err != nil || found == nil { // closed meanwhile, or no table
			continue
		}
		id, err := strconv.ParseUint(string(found[1]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		table, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		if table.Type() == ebpf.Hash {
			tables++
			h.entries += entries(t, table)
		}
		table.Close()
	}
	if tables == 0 {
		t.Fatal("the relay has no table in the kernel, so that the test shows nothing")
	}
	return h
}

func entries(t *testing.T, table *ebpf.Map) (n int) {
	t.Helper()
	var key, value []byte
	all := table.Iterate()
	for all.Next(&key, &value) {
		n++
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		t.Fatal(err)
	}
	return n
}
