package stage

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const hangVariable = "NETPORT_LAB_HANG"

// TestHang is not a test: the one below runs it in a process of its own, where it hangs.
func TestHang(t *testing.T) {
	if os.Getenv(hangVariable) == "" {
		return
	}
	EnterIdle(t)
	waitsForWhatNeverComes(make(chan struct{}))
}

func waitsForWhatNeverComes(c chan struct{}) { <-c }

func TestStoryThatHangsIsNamed(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHang$", "-test.timeout=4s")
	cmd.Env = append(os.Environ(), hangVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it has ended well:\n%s", out)
	}
	for _, want := range []string{"stage: TestHang has not ended within 2s", "waitsForWhatNeverComes"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}
