package audit

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/wire"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// portals returns who asked in each record.
func portals(t *testing.T, folder string, n int, since time.Time) []string {
	t.Helper()
	list, err := Tail(folder, n, since)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range list {
		names = append(names, r.Portal)
	}
	return names
}

func TestRecordsAreReadBackAsTheyWereWritten(t *testing.T) {
	folder := t.TempDir()
	l := New(folder, quiet())
	id, session := wire.GrantID{1, 2}, wire.SessionID{3}
	want := []Record{
		{Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Event: "session", Answer: Refused, Reason: "not granted", Portal: "ann", Peer: "x\nlevel=info \x1b[2J", Grant: &id},
		{Time: time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC), Event: "session", Answer: Ended, Portal: "ann", Peer: "plant", Forward: "web", Session: &session, Relay: "r1", Forth: 1, Back: 2},
	}
	for _, r := range want {
		l.Write(r)
	}
	l.Flush()
	got, err := Tail(folder, 10, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	b, err := os.ReadFile(filepath.Join(folder, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(b, []byte("\n")) != 2 || bytes.ContainsAny(b, "\x1b\r") {
		t.Errorf("not one plain line a record: %q", b)
	}
	if info, err := os.Stat(filepath.Join(folder, fileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestRunWritesWhatIsQueuedBeforeItStops(t *testing.T) {
	folder := t.TempDir()
	l := New(folder, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	for range 100 {
		l.Write(Record{Portal: "ann"})
	}
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(portals(t, folder, 1000, time.Time{})); n != 100 {
		t.Errorf("%d records, want 100", n)
	}
}

func TestFilesArePutAsideBySize(t *testing.T) {
	folder := t.TempDir()
	l := New(folder, quiet())
	l.limit = 400
	names := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
	for i, n := range names {
		l.Write(Record{Time: time.Unix(int64(i), 0).UTC(), Event: "session", Answer: Granted, Portal: n})
		l.Flush()
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) != maxFiles {
		t.Errorf("%d files, want %d (%v)", len(files), maxFiles, err)
	}
	got := portals(t, folder, 100, time.Time{})
	if want := names[len(names)-len(got):]; len(got) < 20 || !cmp.Equal(got, want) {
		t.Errorf("records of %q, want the last ones, in order", got)
	}
	if got := portals(t, folder, 3, time.Time{}); !cmp.Equal(got, []string{"x", "y", "z"}) {
		t.Errorf("the last 3 are of %q", got)
	}
	if got := portals(t, folder, 100, time.Unix(24, 0)); !cmp.Equal(got, []string{"y", "z"}) {
		t.Errorf("those since 24 are of %q", got)
	}
}

// F33: a full disk costs records, counted, and nothing else.
func TestFullDiskIsCountedAndSurvived(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, fileName)
	if err := os.Symlink("/dev/full", file); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	l := New(folder, slog.New(slog.NewTextHandler(&text, nil)))
	for range 5 {
		l.Write(Record{Portal: "lost"})
		l.Flush()
	}
	if n := strings.Count(text.String(), "audit record lost"); n != 1 || !strings.Contains(text.String(), "no space left") {
		t.Errorf("the log says so %d times, want once:\n%s", n, text.String())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	l.Write(Record{Portal: "ann"})
	l.Flush()
	list, err := Tail(folder, 10, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Answer != Lost || list[0].Count != 5 || list[1].Portal != "ann" {
		t.Errorf("records %+v", list)
	}
	if !strings.Contains(text.String(), "lost=5") {
		t.Errorf("the log does not say how many:\n%s", text.String())
	}
	l.Write(Record{Portal: "bo"})
	l.Flush()
	if got := portals(t, folder, 1, time.Time{}); !cmp.Equal(got, []string{"bo"}) {
		t.Errorf("the last record is of %q", got)
	}
}

func TestWriteNeverBlocks(t *testing.T) {
	folder := t.TempDir()
	l := New(folder, quiet())
	for range maxQueue + 7 { // nobody writes
		l.Write(Record{Portal: "ann"})
	}
	l.Flush()
	list, err := Tail(folder, maxQueue+10, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != maxQueue+1 || list[0].Count != 7 {
		t.Errorf("%d records, the first %+v; want %d and 7 lost", len(list), list[0], maxQueue+1)
	}
}

func TestLinesThatAreNoRecordsAreSkipped(t *testing.T) {
	folder := t.TempDir()
	text := "{\"portal\":\"ann\"}\nhalf a li\n\n{\"portal\":\"bo\"}\n{\"portal"
	if err := os.WriteFile(filepath.Join(folder, fileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := portals(t, folder, 10, time.Time{}); !cmp.Equal(got, []string{"ann", "bo"}) {
		t.Errorf("records of %q", got)
	}
}
