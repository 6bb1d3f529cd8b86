package store

import "time"

// Timed is a Store that says how long each Commit took, with those that failed.
type Timed struct {
	Store
	Took func(time.Duration)
}

// Commit implements Store.
func (t Timed) Commit(c Change) (uint64, error) {
	begun := time.Now()
	defer func() { t.Took(time.Since(begun)) }()
	return t.Store.Commit(c)
}
