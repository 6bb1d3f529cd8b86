//go:build linux

package handover

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTroubleIsToldOnceAMinute: and how often there was some.
func TestTroubleIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(slog.NewTextHandler(&b, nil))
		var trouble Trouble
		for range 1000 {
			trouble.Warn(log, "not handed over", errors.New("nobody there"))
			time.Sleep(100 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "error=\"nobody there\" unsaid_before=0") || !strings.Contains(lines[1], "unsaid_before=599") {
			t.Errorf("in 100 seconds it was said:\n%s", b.String())
		}
	})
}
