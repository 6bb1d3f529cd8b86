package need

import (
	"runtime"
	"strings"
	"testing"
)

// ended notes how a test was ended.
type ended struct {
	testing.TB
	skipped, failed string
}

func (e *ended) Helper() {}

func (e *ended) Skip(args ...any) {
	e.skipped = args[0].(string)
	runtime.Goexit()
}

func (e *ended) Fatal(args ...any) {
	e.failed = args[0].(string)
	runtime.Goexit()
}

func end(f func(testing.TB)) (e ended) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(&e)
	}()
	<-done
	return e
}

func TestMissingProgramIsNamed(t *testing.T) {
	wants := func(t testing.TB) { Program(t, "sh", "no-such-program") }
	t.Setenv("CI", "")
	if e := end(wants); !strings.Contains(e.skipped, "needs program no-such-program") || e.failed != "" {
		t.Errorf("outside CI: skipped %q, failed %q", e.skipped, e.failed)
	}
	t.Setenv("CI", "true")
	if e := end(wants); !strings.Contains(e.failed, "needs program no-such-program") || e.skipped != "" {
		t.Errorf("in CI: skipped %q, failed %q", e.skipped, e.failed)
	}
	if e := end(func(t testing.TB) { Program(t, "sh") }); e.skipped != "" || e.failed != "" {
		t.Errorf("with the program: skipped %q, failed %q", e.skipped, e.failed)
	}
}
