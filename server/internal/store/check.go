package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockPoll is how often a file in use is looked at again.
const lockPoll = 50 * time.Millisecond

// damaged is what a person can do about a file that fails its checks.
const damaged = "the file is damaged; put back a copy of it, or run init in a new folder and enrol again"

// The parts of bbolt's meta page that checkFile reads. The page is written with
// the byte order of the machine.
const (
	metaAt          = 16 // after the page header
	metaLen         = 64
	metaRoot        = 16 // offsets in the meta itself
	metaFreelist    = 32
	metaPages       = 40
	metaTransaction = 48
	metaSum         = 56
	metaMagic       = 0xED0CDAED
	smallestPage    = 1024
	largestPage     = 65536
)

// checkFile looks at the file before bbolt maps it into memory, where a page
// that is missing would be a fault and no error. It refuses a file that is
// shorter than its meta pages say, one of whose two meta pages is broken
// (bbolt would go on with the older one, and so with an older policy), and one
// whose pages bbolt must not follow.
func checkFile(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("open state %s: %w", file, cause(err))
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("open state %s: it is not a regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open state %s: %w", file, cause(err))
	}
	defer f.Close() // and with it the lock
	if err := lockForReading(f); err != nil {
		return fmt.Errorf("open state %s: %w: is a netport-server running on it?", file, err)
	}
	if err := checkMetas(f, info.Size()); err != nil {
		return fmt.Errorf("open state %s: %w: %s", file, err, damaged)
	}
	return nil
}

// lockForReading waits until no process writes to the file, at most lockWait. It
// takes the lock that bbolt takes.
func lockForReading(f *os.File) error {
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return ErrInUse
		}
	}
}

func checkMetas(f io.ReaderAt, size int64) error {
	var pageSize int64
	var newest [metaLen]byte
	for i := range int64(2) {
		var b [metaAt + metaLen]byte
		if _, err := f.ReadAt(b[:], i*pageSize); err != nil {
			return errors.New("it is cut short")
		}
		m := b[metaAt:]
		sum := fnv.New64a()
		sum.Write(m[:metaSum])
		if binary.NativeEndian.Uint32(m) != metaMagic || binary.NativeEndian.Uint64(m[metaSum:]) != sum.Sum64() {
			return fmt.Errorf("its meta page %d is broken", i)
		}
		pageSize = int64(binary.NativeEndian.Uint32(m[8:]))
		if pageSize < smallestPage || pageSize > largestPage {
			return fmt.Errorf("its meta page %d is broken", i)
		}
		if pages := binary.NativeEndian.Uint64(m[metaPages:]); pages > uint64(size/pageSize) {
			return fmt.Errorf("it has %d bytes, and %d pages of %d bytes belong to it", size, pages, pageSize)
		}
		if i == 0 || binary.NativeEndian.Uint64(m[metaTransaction:]) > binary.NativeEndian.Uint64(newest[metaTransaction:]) {
			newest = [metaLen]byte(m)
		}
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(newest[at:]) }
	p := pages{file: f, size: pageSize, count: word(metaPages), used: make(map[uint64]bool)}
	return p.check(word(metaRoot), word(metaFreelist))
}

// openChecked opens the database and reads every entry. A reference to a page
// that does not exist is a fault, or a panic of bbolt's: both end up as an
// error here. Only after that walk is bbolt's own check safe, which runs in a
// goroutine where a fault would end the process.
func openChecked(file string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v: %s", r, damaged)
		}
	}()
	db, err = bbolt.Open(file, 0o600, options())
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, err
	}
	if err != nil {
		return nil, cause(err)
	}
	if err := db.View(checkEntries); err != nil {
		db.Close()
		return nil, fmt.Errorf("%w: %s", err, damaged)
	}
	return db, nil
}

func checkEntries(tx *bbolt.Tx) error {
	entries, heads := tx.Bucket(entriesBucket), tx.Bucket(headBucket)
	if entries == nil || heads == nil {
		return errors.New("its buckets are missing")
	}
	want, err := parseHead(heads.Get(headKey))
	if err != nil {
		return err
	}
	got := head{revision: want.revision}
	var last []byte
	c := entries.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if v == nil || string(k) <= string(last) && last != nil {
			return errors.New("its keys are not in order")
		}
		if e, err := entry(k, v); err != nil {
			return err
		} else if e.Revision > want.revision {
			return fmt.Errorf("the entry %q is newer than the whole", k)
		}
		got.add(k, v)
		last = k
	}
	if got != want {
		return fmt.Errorf("%d entries do not add up to what was written (%d entries)", got.entries, want.entries)
	}
	var found error
	for err := range tx.Check() {
		if found == nil {
			found = err
		}
	}
	return found
}
