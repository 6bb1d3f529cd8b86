package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRelayKeepsTheRightsOfItsPlaneAlone: with a kernel plane, after its start, it has CAP_NET_ADMIN and CAP_BPF on every
// thread, and no way to others (T38, G12).
func TestRelayKeepsTheRightsOfItsPlaneAlone(t *testing.T) {
	w := newWorld(t, plan{})
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", w.relay.Process().PID()))
	if err != nil || len(tasks) < 3 {
		t.Fatalf("%v, %v", tasks, err)
	}
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		got := make(map[string]string)
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			got[key] = strings.TrimSpace(value)
		}
		for key, want := range map[string]string{
			"CapInh": "0000000000000000", "CapPrm": "0000008000001000", "CapEff": "0000008000001000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Groups": "",
		} {
			if got[key] != want {
				t.Errorf("%s: %s is %q, want %q", name, key, got[key], want)
			}
		}
	}
}
