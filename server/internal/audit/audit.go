// Package audit writes one line of JSON for each decision of the server: who
// asked for what, what the answer was, and which forward decided it.
//
// Write never blocks and never fails: lines go through a bounded queue to one
// goroutine, which owns the file. Lines that cannot be written, because the
// disk is full or slower than the decisions, are counted; the log says so once,
// and the next line that can be written tells how many are missing before it.
// A file that has reached its size is put aside as audit.log.1, .2 and so on.
//
// Each line names the SHA-256 of the line before it (file chain.go), across files
// and restarts, so that nobody alters, removes, adds or moves a line unseen
// (Verify). Lines cut off at the end leave no trace in the files themselves: who
// wants to see that too keeps the head, the hash of the last line, elsewhere.
//
// A server follows the chain before it writes. Where it is broken the log says so, and a
// line that says it, too, begins the chain anew: what comes after that is shown to be whole.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	fileName = "audit.log"
	// maxFile is the size from which a file is put aside, in bytes; maxFiles is
	// how many there are, the current one included.
	maxFile  = 16 << 20
	maxFiles = 8
	// maxQueue is how many records may wait for the disk.
	maxQueue = 4096
)

// The answers of a Record.
const (
	Granted = "granted"
	Refused = "refused"
	Ended   = "ended"
	Done    = "done"
	Waiting = "waiting" // for an operator
	Lost    = "lost"    // records before this one could not be written
	Torn    = "torn"    // the line before this one was cut short by a crash, and was taken out
	Broken  = "broken"  // the chain is broken before this line, and begins anew with it
)

// Record is one line. Empty fields are left out.
type Record struct {
	Time    time.Time       `json:"time"`
	Event   string          `json:"event"` // session, connect, contest, policy, enrol, audit
	Answer  string          `json:"answer"`
	Reason  string          `json:"reason,omitempty"`
	Portal  string          `json:"portal,omitempty"` // who asked
	Peer    string          `json:"peer,omitempty"`   // the other portal
	Forward string          `json:"forward,omitempty"`
	Grant   *wire.GrantID   `json:"grant,omitempty"`
	Session *wire.SessionID `json:"session,omitempty"`
	Relay   string          `json:"relay,omitempty"`
	From    string          `json:"from,omitempty"`  // address of who asked
	Forth   uint64          `json:"forth,omitempty"` // bytes from the opener to the other
	Back    uint64          `json:"back,omitempty"`
	Version uint64          `json:"version,omitempty"` // of the policy
	Count   uint64          `json:"count,omitempty"`   // of lost records
	By      string          `json:"by,omitempty"`      // the operator who gave the command: "admin/ann", "local uid 0 (root)"
	Detail  string          `json:"detail,omitempty"`
}

// Log writes records to the audit files of one folder.
type Log struct {
	folder string
	log    *slog.Logger
	limit  int64 // size at which a file is put aside
	queue  chan Record
	lost   atomic.Uint64 // since the last line that was written
	counts counts
	broken atomic.Pointer[string] // where the chain was found broken; nil: nowhere

	// Owned by Run.
	file *os.File
	size int64
	head hash // of the last line
	told bool // the log has been told that records are lost
}

// New returns the audit log of a folder; nothing is written before Run.
func New(folder string, log *slog.Logger) *Log {
	return &Log{folder: folder, log: log, limit: maxFile, queue: make(chan Record, maxQueue)}
}

// Write queues a record.
func (l *Log) Write(r Record) {
	if r.Time.IsZero() {
		r.Time = now()
	}
	l.counts.add(r)
	select {
	case l.queue <- r:
	default:
		l.lost.Add(1)
	}
}

// Missing returns how many records could not be written and are not yet noted as
// lost: zero while all is well.
func (l *Log) Missing() uint64 { return l.lost.Load() }

// Damage says where the chain was found broken; empty: nowhere.
func (l *Log) Damage() string {
	if at := l.broken.Load(); at != nil {
		return *at
	}
	return ""
}

// Run writes what is queued until ctx is cancelled, and then what is left.
func (l *Log) Run(ctx context.Context) error {
	defer l.close()
	for {
		select {
		case r := <-l.queue:
			l.write(r)
		case <-ctx.Done():
			l.Flush()
			return nil
		}
	}
}

// Follow follows the chain, before Run. What is wrong with it is said, and noted.
func (l *Log) Follow() {
	v, err := Verify(l.folder, "")
	switch {
	case err != nil:
		l.log.Error("the audit log is not known to be whole", "error", err)
	case v.Broken != "":
		l.damaged(v.Broken)
	case v.Open:
		if err := l.ready(now()); err != nil {
			l.log.Error("the audit log is not mended", "error", err)
		}
	}
}

// damaged begins the chain anew.
func (l *Log) damaged(at string) {
	l.broken.Store(&at)
	l.log.Error("the audit log is damaged: what is written now begins it anew, and what stands there is kept; \"netport-server audit verify\" says more", "at", at)
	l.write(Record{Time: now(), Event: "audit", Answer: Broken, Detail: at})
}

// now is the time as records have it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Flush writes what is queued now. It is for a process without Run: a command
// that works on the state of a stopped server.
func (l *Log) Flush() {
	for {
		select {
		case r := <-l.queue:
			l.write(r)
		default:
			return
		}
	}
}

// write writes one line, and before it how many are missing.
func (l *Log) write(r Record) {
	if missing := l.lost.Load(); missing > 0 {
		gap := Record{Time: r.Time, Event: "audit", Answer: Lost, Count: missing}
		if l.append(gap) != nil {
			l.lost.Add(1)
			return
		}
		l.lost.Add(^(missing - 1)) // subtracts it
		l.log.Warn("audit works again", "lost", missing)
		l.told = false
	}
	if err := l.append(r); err != nil {
		l.lost.Add(1)
		if !l.told {
			l.told = true
			l.log.Error("audit record lost", "error", err)
		}
	}
}

// append writes one line.
func (l *Log) append(r Record) error {
	if l.file != nil && l.size >= l.limit {
		l.rotate()
	}
	if err := l.ready(r.Time); err != nil {
		return err
	}
	return l.writeLine(r)
}

// ready opens the file if it is not open. What a crash left at its end is mended and
// noted; a file that has something else there is put aside.
func (l *Log) ready(at time.Time) error {
	if l.file != nil {
		return nil
	}
	torn, err := l.open()
	if errors.Is(err, errForeign) {
		l.rotate()
		if torn, err = l.open(); err == nil {
			l.damaged(fileOf("", 1) + ": " + errForeign.Error())
		}
	}
	if err != nil || torn == "" {
		return err
	}
	if err := l.writeLine(Record{Time: at, Event: "audit", Answer: Torn, Detail: torn}); err != nil {
		return err
	}
	l.log.Warn("audit: the last line was cut short by a crash; it was taken out", "file", l.name(0), "line", torn)
	return nil
}

func (l *Log) writeLine(r Record) error {
	line, err := encode(l.head, r)
	if err != nil {
		return err
	}
	n, err := l.file.Write(append(line, '\n'))
	if err == nil {
		l.size += int64(n)
		l.head = hashOf(line)
		return nil
	}
	if n > 0 {
		l.file.Truncate(l.size) // half a line would spoil the next one
	}
	l.close()
	return err
}

// open opens the current file and finds where the chain goes on. It returns what
// it took out at the end: a line without its end.
func (l *Log) open() (torn string, err error) {
	f, err := os.OpenFile(l.name(0), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	end, err := readEnd(f)
	if err != nil {
		return "", err
	}
	if end.torn != "" {
		if err := f.Truncate(end.size); err != nil {
			return "", err
		}
	}
	if end.last == nil { // an empty file continues the one put aside before it
		if end.last, err = lastLine(l.name(1)); err != nil {
			return "", err
		}
	}
	l.file, l.size, l.head = f, end.size, hashOf(end.last)
	return end.torn, nil
}

// rotate puts the files aside, the oldest out. If that does not work the
// current file grows on: a line is worth more than a size.
func (l *Log) rotate() {
	l.close()
	for i := maxFiles - 1; i > 0; i-- {
		os.Rename(l.name(i-1), l.name(i))
	}
}

func (l *Log) name(i int) string { return fileOf(l.folder, i) }

// fileOf names the current file of a folder (0) and those put aside (1, 2, ...).
func fileOf(folder string, i int) string {
	name := filepath.Join(folder, fileName)
	if i > 0 {
		name = fmt.Sprintf("%s.%d", name, i)
	}
	return name
}

func (l *Log) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}
