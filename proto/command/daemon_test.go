//go:build unix

package command

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
)

// TestLogChangesWhileItIsWritten: what has a logger already writes as is asked for now.
func TestLogChangesWhileItIsWritten(t *testing.T) {
	var b bytes.Buffer
	d, err := newDaemon(&b, Log{Level: "warn", Format: LogText})
	if err != nil {
		t.Fatal(err)
	}
	log := d.log.With("peer", "ann")
	log.Info("first")
	log.Warn("second")
	d.setLog(Log{Level: "debug", Format: LogJSON})
	log.Debug("third")
	d.setLog(Log{})
	log.WithGroup("g").Info("fourth", "n", 1)
	log.Debug("fifth")
	d.end()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, want := range []string{`level=WARN msg=second peer=ann`, `"level":"DEBUG","msg":"third","peer":"ann"}`, `level=INFO msg=fourth peer=ann g.n=1`} {
		if len(lines) != 3 || !strings.HasSuffix(lines[i], want) {
			t.Fatalf("log:\n%s\nwant %q in line %d of 3", b.String(), want, i+1)
		}
	}
}

func TestHangupsAreHandedOn(t *testing.T) {
	d, err := newDaemon(new(bytes.Buffer), Log{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.end()
	for range 2 {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-d.hangups
	}
}
