// Package users says which users of this machine may connect to a portal's listeners,
// where its owner has named some (listen.users). Only Linux tells who has connected to a
// TCP port, so elsewhere such a list is refused as a whole.
package users

import (
	"fmt"
	"math"
	"net"
	"os/user"
	"slices"
	"strconv"
)

// List is the users that an owner has named. The zero List is one that he did not write:
// it admits everybody, and asks nobody who he is. A written List without users admits
// nobody.
type List struct {
	ids     []uint32
	written bool
}

// NewList returns the list of these user ids, written by the owner.
func NewList(ids ...uint32) List { return List{ids: ids, written: true} }

// Written reports whether the owner wrote the list.
func (l List) Written() bool { return l.written }

// Parse reads a user as configuration files name one: his name or his number.
func Parse(v any) (uint32, error) {
	switch v := v.(type) {
	case int64:
		if v < 0 || v >= math.MaxUint32 {
			return 0, fmt.Errorf("%d is no user id: 0 to %d are", v, uint32(math.MaxUint32-1))
		}
		return uint32(v), nil
	case string:
		u, err := user.Lookup(v)
		if err != nil {
			return 0, fmt.Errorf("no user %q on this machine: write the number of one that only a directory service knows", v)
		}
		id, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("user %q has no number but %q", v, u.Uid)
		}
		return uint32(id), nil
	}
	return 0, fmt.Errorf(`%v is no user: write a name, like "ann", or a number`, v)
}

// Check refuses a connection whose other end belongs to none of the users, or of which
// the system cannot tell whose it is: one from another machine, for instance. It takes
// about 10 µs, and nothing for the zero List.
func (l List) Check(c net.Conn) error {
	if !l.written {
		return nil
	}
	uid, err := owner(c)
	if err != nil {
		return fmt.Errorf("only named users of this machine may connect (listen.users), and whose this is cannot be told: %w", err)
	}
	if !slices.Contains(l.ids, uid) {
		return fmt.Errorf("user %d is not one of those that may connect (listen.users)", uid)
	}
	return nil
}

// Ready refuses a listener of whose clients the system could not tell whose they are.
func (l List) Ready(listener net.Listener) error {
	if !l.written {
		return nil
	}
	if err := told(listener); err != nil {
		return fmt.Errorf("only named users may connect (listen.users), and this system does not tell who does: %w", err)
	}
	return nil
}
