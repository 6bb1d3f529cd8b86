package command

import (
	"io"

	"github.com/netport/netport/proto/supervise"
)

// isJournal reports whether w is the event log, which has the time of each line and wants
// its level.
func isJournal(w io.Writer, _ string) bool {
	_, ok := w.(*supervise.Events)
	return ok
}
