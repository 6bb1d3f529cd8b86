package command

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// isJournal reports whether w is the stream that systemd reads for its journal, by
// what it says of that in JOURNAL_STREAM: the device and the inode. A daemon's
// output that was sent elsewhere is another.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
