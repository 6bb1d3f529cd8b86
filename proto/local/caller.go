package local

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// Caller is who asks a daemon for something. The zero Caller is nobody: the daemon itself.
type Caller struct {
	// Admin is the name of an admin who asks from another machine.
	Admin string
	// Local says that it is a user of this machine, UID (below zero: of a system that does
	// not tell).
	Local bool
	UID   int
}

// String names who asks for people and for the audit log: "local uid 0 (root)", or an
// identity without its domain, "admin/ann"; "" for nobody.
func (c Caller) String() string {
	switch {
	case c.Admin != "":
		return "admin/" + c.Admin
	case !c.Local:
		return ""
	case c.UID < 0:
		return "local"
	}
	text := fmt.Sprintf("local uid %d", c.UID)
	if u, err := user.LookupId(strconv.Itoa(c.UID)); err == nil {
		text += " (" + u.Username + ")"
	}
	return text
}

type callerKey struct{}

// WithCaller returns a context for what c has asked for.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who asked for what a context is for; the zero Caller if nobody did,
// but the daemon itself.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Here is the user of this process.
func Here() Caller { return localCaller(os.Getuid()) }

func localCaller(uid int) Caller { return Caller{Local: true, UID: uid} }
