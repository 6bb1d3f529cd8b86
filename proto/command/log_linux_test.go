package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// logged returns what a logger to a file has written, when each level has said a word.
// Where journal is true the environment names the file as systemd would.
func logged(t *testing.T, l Log, journal bool) []string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	stream := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	if !journal {
		stream = fmt.Sprintf("%d:%d", st.Dev, st.Ino+1)
	}
	t.Setenv("JOURNAL_STREAM", stream)
	log, flush, err := l.Logger(f)
	if err != nil {
		t.Fatal(err)
	}
	log = log.With("peer", "ann")
	log.Debug("d")
	log.Info("i", "n", 1)
	log.WithGroup("g").Warn("w", "time", "mine")
	log.Error("e", "error", errors.New("x\n<0>forged"))
	flush()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestJournalIsToldTheLevel(t *testing.T) {
	got := strings.Join(logged(t, Log{Level: "debug"}, true), "\n")
	want := `<7>level=DEBUG msg=d peer=ann
<6>level=INFO msg=i peer=ann n=1
<4>level=WARN msg=w peer=ann g.time=mine
<3>level=ERROR msg=e peer=ann error="x\n<0>forged"`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i, line := range logged(t, Log{Format: LogJSON}, true) {
		level, object := line[:3], line[3:]
		var v map[string]any
		if err := json.Unmarshal([]byte(object), &v); err != nil || level != []string{"<6>", "<4>", "<3>"}[i] || v["peer"] != "ann" || v["time"] != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestOnlyTheJournalIsToldTheLevel has the output of a service sent to a file.
func TestOnlyTheJournalIsToldTheLevel(t *testing.T) {
	for _, line := range logged(t, Log{}, false) {
		if !strings.HasPrefix(line, "time=") {
			t.Error(line)
		}
	}
	lines := logged(t, Log{Level: "warn", Format: LogJSON}, false)
	if len(lines) != 2 {
		t.Fatal(lines)
	}
	for _, line := range lines {
		var v struct {
			Time, Level, Msg, Peer string
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Time == "" || v.Level == "" || v.Peer != "ann" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestLogIsRefusedThatIsNone(t *testing.T) {
	var b bytes.Buffer
	for _, l := range []Log{{Level: "loud"}, {Level: "INFO"}, {Format: "xml"}} {
		if _, _, err := l.Logger(&b); err == nil {
			t.Errorf("%+v was taken", l)
		}
		if (l.CheckLevel() == nil) == (l.CheckFormat() == nil) {
			t.Errorf("%+v: %v, %v", l, l.CheckLevel(), l.CheckFormat())
		}
	}
}

func TestLogRecordIsOneShortLine(t *testing.T) {
	for _, format := range []string{LogText, LogJSON} {
		var b bytes.Buffer
		log, flush, err := Log{Format: format}.Logger(&b)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("refused", "peer", "x\nlevel=info msg=\"accepted\"\x1b[2J\u202e", "error", errors.New(strings.Repeat("a\n", 65536)))
		flush()
		got := b.String()
		if strings.Count(got, "\n") != 1 || len(got) > 2048 || strings.Contains(got, "\x1b") || format == LogText && strings.Contains(got, "\u202e") {
			t.Errorf("%s log record of %d bytes: %.300q", format, len(got), got)
		}
	}
}

// stuck is a pipe that nobody reads until it is told to.
type stuck struct {
	read chan struct{}
	buf  bytes.Buffer
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.read
	return s.buf.Write(b)
}

func TestLogThatNobodyReadsBlocksNobody(t *testing.T) {
	w := &stuck{read: make(chan struct{})}
	log, flush, err := Log{}.Logger(w)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxLogQueue {
		log.Info("record", "n", i) // would never return if it waited for w
	}
	close(w.read)
	flush()
	got := w.buf.String()
	if !strings.Contains(got, "n=0\n") || !strings.Contains(got, "log records dropped") {
		t.Errorf("log is %.200q..., want the first records and a count of those dropped", got)
	}
	log.Info("after the end") // harmless
}
