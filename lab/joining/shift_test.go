package joining

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installShifted replaces the programs of some roles in a world by ones that are built with another time.Now: it is ahead by what a
// file says (testdata/shift). No namespace shifts the wall clock, and setting the machine's own would be everybody's.
// Nothing of the programs is another but that.
func installShifted(t *testing.T, dir string, roles []string) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const now = "\tmono -= startNano\n\tsec += unixToInternal - minWall\n"
	if strings.Count(string(text), now) != 1 {
		t.Fatalf("time.Now of %s is not what it was: look for where it gets its seconds", src)
	}
	work := t.TempDir()
	changed := filepath.Join(work, "time.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), now, "\tsec += shift.Load()\n"+now, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := filepath.Abs(filepath.Join("testdata", "shift", "shift.go"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(src, "time.go"): changed, filepath.Join(src, "shift.go"): added}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		cmd := exec.Command("go", "build", "-overlay", overlay, "-o", filepath.Join(dir, "netport-"+role), ".")
		cmd.Dir = filepath.Join("..", "..", role)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build netport-%s with a clock that can be shifted: %v: %s", role, err, out)
		}
	}
}
