package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var (
	entriesBucket = []byte("entries")
	headBucket    = []byte("head")
	headKey       = []byte("head")
)

// lockWait is how long Open waits for another process, such as a command that
// is about to end.
const lockWait = 2 * time.Second

// Bolt is a Store in one file.
//
// A value is stored behind its revision (8 bytes). Beside the entries stands a
// head: the last revision, and the sum of a hash of every entry. bbolt itself
// guards only its two meta pages by checksums; the sum finds any entry that was
// lost, altered or brought back by a disk.
type Bolt struct {
	db *bbolt.DB
}

// Create makes a new, empty store; it never overwrites a file.
func Create(file string) (*Bolt, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create state %s: %w", file, cause(err))
	}
	f.Close()
	db, err := bbolt.Open(file, 0o600, options())
	if err != nil {
		return nil, fmt.Errorf("create state %s: %w", file, cause(err))
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket(entriesBucket); err != nil {
			return err
		}
		b, err := tx.CreateBucket(headBucket)
		if err != nil {
			return err
		}
		return b.Put(headKey, head{}.encode())
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("create state %s: %w", file, cause(err))
	}
	return &Bolt{db}, nil
}

// Open opens a store and checks all of it: a file that is damaged anywhere is
// refused. ErrInUse is returned if another process has it open.
func Open(file string) (*Bolt, error) {
	if err := checkFile(file); err != nil {
		return nil, err
	}
	db, err := openChecked(file)
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open state %s: %w: is a netport-server running on it?", file, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", file, err)
	}
	return &Bolt{db}, nil
}

func options() *bbolt.Options {
	return &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType}
}

// Close implements Store.
func (s *Bolt) Close() error { return s.db.Close() }

// Get implements Store.
func (s *Bolt) Get(key string) (Entry, error) {
	var e Entry
	err := s.db.View(func(tx *bbolt.Tx) error {
		var err error
		e, err = entry([]byte(key), tx.Bucket(entriesBucket).Get([]byte(key)))
		return err
	})
	return e, err
}

// List implements Store.
func (s *Bolt) List(prefix string) ([]Entry, error) {
	var list []Entry
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(entriesBucket).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			e, err := entry(k, v)
			if err != nil {
				return err
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}

// Commit implements Store.
func (s *Bolt) Commit(change Change) (revision uint64, err error) {
	err = s.db.Update(func(tx *bbolt.Tx) error {
		h, err := parseHead(tx.Bucket(headBucket).Get(headKey))
		if err != nil {
			return err
		}
		b := tx.Bucket(entriesBucket)
		for key, want := range change.If {
			e, err := entry([]byte(key), b.Get([]byte(key)))
			if err != nil {
				return err
			}
			if e.Revision != want {
				return ErrConflict
			}
		}
		h.revision++
		revision = h.revision
		for _, key := range change.Delete {
			if old := b.Get([]byte(key)); old != nil {
				h.remove([]byte(key), old)
				if err := b.Delete([]byte(key)); err != nil {
					return err
				}
			}
		}
		// In the order of the keys: bbolt makes room in the middle of a page by
		// moving the rest of it, and a page only splits in the end.
		for _, key := range slices.Sorted(maps.Keys(change.Put)) {
			k, value := []byte(key), change.Put[key]
			if old := b.Get(k); old != nil {
				h.remove(k, old)
			}
			stored := append(binary.BigEndian.AppendUint64(nil, h.revision), value...)
			h.add(k, stored)
			if err := b.Put(k, stored); err != nil {
				return err
			}
		}
		return tx.Bucket(headBucket).Put(headKey, h.encode())
	})
	switch {
	case err == nil:
		return revision, nil
	case errors.Is(err, ErrConflict):
		return 0, err
	}
	return 0, fmt.Errorf("write state %s: %w", s.db.Path(), cause(err))
}

// entry reads a stored value; the result shares no memory with the file.
func entry(key, stored []byte) (Entry, error) {
	if stored == nil {
		return Entry{Key: string(key)}, nil
	}
	if len(stored) < 8 {
		return Entry{}, fmt.Errorf("state: the entry %q is cut short", key)
	}
	return Entry{Key: string(key), Value: bytes.Clone(stored[8:]), Revision: binary.BigEndian.Uint64(stored)}, nil
}

// head describes the whole of the entries.
type head struct {
	revision uint64
	entries  uint64
	sum      uint64 // of hashEntry over all entries, modulo 2^64
}

func hashEntry(key, stored []byte) uint64 {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	h.Write(key)
	h.Write(stored)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (h *head) add(key, stored []byte)    { h.entries++; h.sum += hashEntry(key, stored) }
func (h *head) remove(key, stored []byte) { h.entries--; h.sum -= hashEntry(key, stored) }

func (h head) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, h.revision)
	b = binary.BigEndian.AppendUint64(b, h.entries)
	b = binary.BigEndian.AppendUint64(b, h.sum)
	check := sha256.Sum256(b)
	return append(b, check[:8]...)
}

func parseHead(b []byte) (head, error) {
	if len(b) == 32 {
		h := head{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
		if bytes.Equal(b, h.encode()) {
			return h, nil
		}
	}
	return head{}, errors.New("its head is missing or altered")
}

// cause strips the path that package os puts before its errors.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
