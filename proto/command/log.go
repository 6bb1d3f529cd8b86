package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
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

// The formats of a log.
const (
	LogText = "text" // key=value
	LogJSON = "json" // an object a line
)

// Log says how a daemon writes its log. The zero value is text of level info.
type Log struct {
	Level  string // debug, info, warn or error: that and above
	Format string // one of the formats
}

// CheckLevel and CheckFormat say what is wrong with a log's level and format.
func (l Log) CheckLevel() error {
	_, err := l.level()
	return err
}

// CheckFormat is described at CheckLevel.
func (l Log) CheckFormat() error {
	switch l.Format {
	case "", LogText, LogJSON:
		return nil
	}
	return fmt.Errorf("log format %q: use text or json", l.Format)
}

func (l Log) level() (level slog.Level, err error) {
	switch l.Level {
	case "":
	case "debug", "info", "warn", "error":
		level.UnmarshalText([]byte(l.Level))
	default:
		err = fmt.Errorf("log level %q: use debug, info, warn or error", l.Level)
	}
	return level, err
}

// Logger returns a logger that writes to w, a record a line. Every text is cut to 512
// bytes and quoted where it holds anything but plain characters.
//
// Where w is the stream that systemd reads for its journal (JOURNAL_STREAM), each
// line begins with its level as the journal knows it, "<4>" for a warning, and has
// no time: the journal has that.
//
// Logging never blocks: records wait in a bounded queue for whoever reads w,
// and when it is full they are dropped, and counted in a record of their own
// later. flush writes what is left and ends the logger's goroutine; it waits a
// second at most.
func (l Log) Logger(w io.Writer) (log *slog.Logger, flush func(), err error) {
	o, err := l.open(w)
	if err != nil {
		return nil, nil, err
	}
	return o.log, o.queue.flush, nil
}

// logging is a log that is being written.
type logging struct {
	log   *slog.Logger
	queue *logQueue
	manner
}

// manner is how a log is written now.
type manner struct {
	level  *slog.LevelVar
	asJSON *atomic.Bool
}

func (m manner) set(l Log) {
	level, _ := l.level()
	m.level.Set(level)
	m.asJSON.Store(l.Format == LogJSON)
}

func (l Log) open(w io.Writer) (*logging, error) {
	if err := l.CheckFormat(); err != nil {
		return nil, err
	}
	if err := l.CheckLevel(); err != nil {
		return nil, err
	}
	m := manner{level: new(slog.LevelVar), asJSON: new(atomic.Bool)}
	m.set(l)
	q := &logQueue{records: make(chan []byte, maxLogQueue), done: make(chan struct{})}
	journal := isJournal(w, os.Getenv("JOURNAL_STREAM"))
	go q.run(w, slog.New(m.handler(w, journal)))
	return &logging{slog.New(m.handler(q, journal)), q, m}, nil
}

func (m manner) handler(w io.Writer, journal bool) slog.Handler {
	make := func(w io.Writer, replace func([]string, slog.Attr) slog.Attr) slog.Handler {
		options := &slog.HandlerOptions{Level: m.level, ReplaceAttr: replace}
		return &eitherHandler{slog.NewTextHandler(w, options), slog.NewJSONHandler(w, options), m.asJSON}
	}
	if !journal {
		return make(w, shorten)
	}
	p := &prefixer{w: w}
	return &journalHandler{prefix: p, Handler: make(p, func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return shorten(groups, a)
	})}
}

// eitherHandler writes each record in the format that is asked for at its moment.
type eitherHandler struct {
	text, json slog.Handler
	asJSON     *atomic.Bool
}

func (h *eitherHandler) now() slog.Handler {
	if h.asJSON.Load() {
		return h.json
	}
	return h.text
}

// Enabled implements slog.Handler.
func (h *eitherHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.now().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *eitherHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.now().Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *eitherHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &eitherHandler{h.text.WithAttrs(attrs), h.json.WithAttrs(attrs), h.asJSON}
}

// WithGroup implements slog.Handler.
func (h *eitherHandler) WithGroup(name string) slog.Handler {
	return &eitherHandler{h.text.WithGroup(name), h.json.WithGroup(name), h.asJSON}
}

// journalHandler has each record begin with its level.
type journalHandler struct {
	slog.Handler
	prefix *prefixer
}

// prefixer writes a prefix before each record.
type prefixer struct {
	w io.Writer

	mu     sync.Mutex // guards the following; held while a record is written
	prefix string
	line   []byte
}

// Write writes one record. The mutex is held.
func (p *prefixer) Write(b []byte) (int, error) {
	p.line = append(append(p.line[:0], p.prefix...), b...)
	_, err := p.w.Write(p.line)
	return len(b), err
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.prefix.mu.Lock()
	defer h.prefix.mu.Unlock()
	h.prefix.prefix = priority(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(attrs), h.prefix}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.prefix}
}

// priority is a level as sd-daemon(3) has it.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
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

// run writes what is queued to w, to which direct writes too.
func (q *logQueue) run(w io.Writer, direct *slog.Logger) {
	defer close(q.done)
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
