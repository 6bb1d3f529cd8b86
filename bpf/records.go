//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
)

// MaxRecord is how long a record can be, in bytes.
const MaxRecord = recordLen - 2

// recordLen is the size of a value in the map: the record's length, the record,
// zeros.
const recordLen = 512

// PutRecord keeps a record for the daemon that adopts the table, in the place of
// an earlier one of the same key. A record lives and dies with the pinned maps:
// it outlasts the process and not the machine.
func (k *Kernel) PutRecord(key [24]byte, record []byte) error {
	if len(record) > MaxRecord {
		return fmt.Errorf("keep a record of %d bytes: at most %d fit", len(record), MaxRecord)
	}
	var value [recordLen]byte
	binary.NativeEndian.PutUint16(value[:], uint16(len(record)))
	copy(value[2:], record)
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return errClosed
	}
	if err := k.maps.Leases.Put(key, value); err != nil {
		return fmt.Errorf("keep a record: %w", err)
	}
	return nil
}

// DeleteRecord forgets a record. It is no error if there is none.
func (k *Kernel) DeleteRecord(key [24]byte) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return errClosed
	}
	if err := k.maps.Leases.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete a record: %w", err)
	}
	return nil
}

// Records returns what is kept, in no order. It is for a start, while nobody
// puts or deletes.
func (k *Kernel) Records() iter.Seq2[[24]byte, []byte] {
	return func(yield func([24]byte, []byte) bool) {
		var key [24]byte
		var value [recordLen]byte
		for list := k.maps.Leases.Iterate(); list.Next(&key, &value); {
			n := min(int(binary.NativeEndian.Uint16(value[:])), MaxRecord)
			if !yield(key, append([]byte(nil), value[2:2+n]...)) {
				return
			}
		}
	}
}
