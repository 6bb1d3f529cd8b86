package command

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLogValue is the longest text in a log record, in bytes: what others
	// send us may be long.
	maxLogValue = 512
	// maxLogQueue is how many records wait for a reader that does not read.
	maxLogQueue = 1024
	// flushTime is how long the end of a program waits for that reader.
	flushTime = time.Second
)

// Logger returns a logger of key=value lines that writes to w: debug, info,
// warn or error and above. Every text is cut to 512 bytes and quoted where it
// holds anything but plain characters, so one record is one line.
//
// Logging never blocks: records wait in a bounded queue for whoever reads w,
// and when it is full they are dropped, and counted in a record of their own
// later. flush writes what is left and ends the logger's goroutine; it waits a
// second at most.
func Logger(w io.Writer, level string) (log *slog.Logger, flush func(), err error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	q := &logQueue{records: make(chan []byte, maxLogQueue), done: make(chan struct{})}
	options := &slog.HandlerOptions{Level: l, ReplaceAttr: shorten}
	go q.run(w, options)
	return slog.New(slog.NewTextHandler(q, options)), q.flush, nil
}

// logQueue is the io.Writer of a logger that must not block.
type logQueue struct {
	records chan []byte
	dropped atomic.Uint64
	done    chan struct{}

	mu     sync.Mutex // guards the following; held while sending to records
	closed bool
}

// Write queues one record.
func (q *logQueue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return len(b), nil
	}
	select {
	case q.records <- append([]byte(nil), b...):
	default:
		q.dropped.Add(1)
	}
	return len(b), nil
}

func (q *logQueue) run(w io.Writer, options *slog.HandlerOptions) {
	defer close(q.done)
	direct := slog.New(slog.NewTextHandler(w, options))
	for b := range q.records {
		w.Write(b) // an error has nobody left to be told
		if n := q.dropped.Swap(0); n > 0 {
			direct.Warn("log records dropped", "count", n, "error", "whoever reads this log is too slow")
		}
	}
}

func (q *logQueue) flush() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.records)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(flushTime):
	}
}

func shorten(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return a
	}
	var s string
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		s = v.String()
	case slog.KindAny:
		s = fmt.Sprint(v.Any())
	default:
		return a
	}
	if len(s) > maxLogValue {
		s = strings.ToValidUTF8(s[:maxLogValue], "") + "..."
	}
	return slog.String(a.Key, s)
}
