// Package store keeps what a server must not forget: who is enrolled, and the
// policy in force with its signed permissions.
//
// It is a key-value store with compare-and-swap over several keys at once: a
// Commit names the revisions it was decided upon, and changes all its keys or
// none. What Commit acknowledges is on disk. Several servers can share such a
// store; Bolt is the one for a single server, a file that one process has open
// at a time. There is no watch and no lease, because one server needs neither:
// who is connected is known by the process that holds the connections.
//
// A Store belongs to who opened it, and is safe for concurrent use.
package store

import "errors"

// ErrConflict says that a key was changed since the revision that a Commit
// named: read again and decide anew.
var ErrConflict = errors.New("the state was changed at the same time; try again")

// ErrInUse says that another process has the state open.
var ErrInUse = errors.New("in use by another process")

// Entry is one key with its value.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // of the commit that last wrote the key; 0: there is no such key
}

// Change is one commit: it happens whole or not at all.
type Change struct {
	// If holds the revision that each named key must have, 0 for a key that
	// must not exist.
	If     map[string]uint64
	Put    map[string][]byte
	Delete []string
}

// Store is the interface.
type Store interface {
	// Get returns the entry of key; one with Revision 0 if there is none.
	Get(key string) (Entry, error)
	// List returns all entries whose keys begin with prefix, in the order of
	// their keys.
	List(prefix string) ([]Entry, error)
	// Commit makes a change and returns its revision once it is on disk. It
	// returns ErrConflict, and changes nothing, if a condition does not hold.
	Commit(Change) (revision uint64, err error)
	Close() error
}
