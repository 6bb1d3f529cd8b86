package joining

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

// shiftedProgram returns a role's program, built with another time.Now: it is ahead by what a file says (testdata/shift).
// No namespace shifts the wall clock, and setting the machine's own would be everybody's. Nothing of the program is another
// but that. It is built once, which takes a while: nearly every package depends on that of time.
func shiftedProgram(t *testing.T, role string) []byte {
	t.Helper()
	program, err := shifted[role]()
	if err != nil {
		t.Fatalf("build netport-%s with a clock that can be shifted: %v", role, err)
	}
	return program
}

var shifted = func() map[string]func() ([]byte, error) {
	programs := make(map[string]func() ([]byte, error))
	for _, role := range []string{"server", "relay", "portal"} {
		programs[role] = sync.OnceValues(func() ([]byte, error) { return buildShifted(role) })
	}
	return programs
}()

func buildShifted(role string) ([]byte, error) {
	root, err := topo.Here("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		return nil, err
	}
	const now = "\tmono -= startNano\n\tsec += unixToInternal - minWall\n"
	if strings.Count(string(text), now) != 1 {
		return nil, fmt.Errorf("time.Now of %s is not what it was: look for where it gets its seconds", src)
	}
	work, err := os.MkdirTemp("", "netport-shift-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	changed, overlay, file := filepath.Join(work, "time.go"), filepath.Join(work, "overlay.json"), filepath.Join(work, "netport-"+role)
	added, err := filepath.Abs(filepath.Join("testdata", "shift", "shift.go"))
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(src, "time.go"): changed, filepath.Join(src, "shift.go"): added}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		os.WriteFile(changed, []byte(strings.Replace(string(text), now, "\tsec += shift.Load()\n"+now, 1)), 0o600),
		os.WriteFile(overlay, b, 0o600),
	); err != nil {
		return nil, err
	}
	cmd := topo.Here("go", "build", "-overlay", overlay, "-o", file, ".")
	cmd.Dir, cmd.Limit = filepath.Join("..", "..", role), daemon.BuildTime
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(file)
}

// install puts a program in the place of a role's.
func (w *world) install(role string, program []byte) {
	w.t.Helper()
	file := filepath.Join(w.dir, "netport-"+role)
	if err := errors.Join(os.Remove(file), daemon.WriteProgram(file, program)); err != nil {
		w.t.Fatal(err)
	}
}
