package policy

import (
	"fmt"
	"os"
	"syscall"
	"unicode/utf8"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/identity"
)

// ReadFile reads a policy file. A file that anybody may write, or that belongs
// to somebody else than the user of this process (root may own it), is refused:
// it says who may reach what.
func ReadFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && info.Mode().IsRegular() {
		if perm := info.Mode().Perm(); perm&0o002 != 0 {
			return nil, fmt.Errorf("read policy %s: its mode %04o lets everybody change it; run: chmod o-w %s", name, perm, name)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
			return nil, fmt.Errorf("read policy %s: it belongs to user %d, and this process runs as user %d; run: chown %d %s", name, st.Uid, os.Geteuid(), os.Geteuid(), name)
		}
	}
	b, err := identity.ReadFileLimit(name, conffile.MaxSize)
	if err == nil && !utf8.Valid(b) { // on the way to the server its bytes would be replaced by others
		return nil, &conffile.Error{File: name, Text: "it is not UTF-8 text"}
	}
	return b, err
}
