package exit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/proto/identity"
)

const (
	usageFile = "usage"
	// usageHead is the first line of the file; then come the month, a line for
	// each pair of ends, and the SHA-256 of all before it.
	usageHead = "netport-usage 1"
	// maxUsage bounds the pairs that are counted in one month.
	maxUsage = 65536
	// maxUsageFile is well above what maxUsage pairs make.
	maxUsageFile = 32 << 20
)

// usage is what each pair of ends has carried in the month, for the grants that
// limit it. It is kept in a file: a portal that is killed loses the last minute.
//
// The month never falls: a clock that is set back does not begin one anew. (One
// that is ahead does no harm either, as long as the grants hold by it: it cannot
// be ahead of their stamps, which last for a day.)
type usage struct {
	path string
	log  *slog.Logger

	ends    atomic.Int64 // the first second after the month
	changed atomic.Bool  // the file lacks something

	mu    sync.Mutex // guards the following
	month time.Time  // its first moment, UTC
	used  map[string]*atomic.Uint64
	names map[string]string // of the forwards, for people who read the file
}

// pairKey tells pairs of ends apart in the file.
func pairKey(p grants.Pair) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", p.Entry, p.Listen, p.Exit, p.Target, p.Proxy))
	return hex.EncodeToString(sum[:16])
}

func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// openUsage reads the file in a folder. One that cannot be used is put aside, and
// counting begins at zero.
func openUsage(folder string, log *slog.Logger) *usage {
	u := &usage{path: filepath.Join(folder, usageFile), log: log, used: make(map[string]*atomic.Uint64), names: make(map[string]string)}
	b, err := identity.ReadFileLimit(u.path, maxUsageFile)
	if err == nil {
		err = u.parse(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		clear(u.used)
		clear(u.names)
		u.month = time.Time{}
		log.Error("the bytes of this month that grants limit are counted from zero: their file cannot be used", "file", u.path, "error", err, "kept-as", u.path+".bad")
		if err := os.Rename(u.path, u.path+".bad"); err != nil {
			log.Error("file not put aside", "error", err)
		}
	}
	u.ends.Store(u.month.AddDate(0, 1, 0).Unix())
	return u
}

// of returns the counter of a pair, or nil if there are too many.
func (u *usage) of(p grants.Pair, forward string) *atomic.Uint64 {
	key := pairKey(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.used[key]
	if n == nil {
		if len(u.used) >= maxUsage {
			return nil
		}
		n = new(atomic.Uint64)
		u.used[key] = n
	}
	u.names[key] = forward
	return n
}

// read returns what a pair has carried in the month.
func (u *usage) read(p grants.Pair) uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := u.used[pairKey(p)]; n != nil {
		return n.Load()
	}
	return 0
}

// turn begins a new month if it is time.
func (u *usage) turn(now time.Time) {
	if now.Unix() < u.ends.Load() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Unix() < u.ends.Load() {
		return
	}
	u.month = monthOf(now)
	for _, n := range u.used {
		n.Store(0)
	}
	u.ends.Store(u.month.AddDate(0, 1, 0).Unix())
	u.changed.Store(true)
}

// next returns when the next month begins.
func (u *usage) next() time.Time { return time.Unix(u.ends.Load(), 0).UTC() }

// write writes the file if it lacks something.
func (u *usage) write() {
	if !u.changed.Swap(false) {
		return
	}
	if err := identity.ReplaceFile(u.path, u.encode(), 0o600); err != nil {
		u.changed.Store(true)
		u.log.Error("the bytes of this month are not kept: a portal that is started anew counts too few", "error", err)
	}
}

func (u *usage) encode() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := fmt.Appendf(nil, "%s\n%s\n", usageHead, u.month.Format("2006-01"))
	for _, key := range slices.Sorted(maps.Keys(u.used)) {
		if n := u.used[key].Load(); n > 0 {
			b = fmt.Appendf(b, "%s %d %s\n", key, n, u.names[key])
		}
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(b, "%x\n", sum)
}

var errUsage = errors.New("it is cut or was altered")

func (u *usage) parse(b []byte) error {
	if len(b) < 2*sha256.Size+1 {
		return errUsage
	}
	text, sum := b[:len(b)-2*sha256.Size-1], b[len(b)-2*sha256.Size-1:]
	if want := sha256.Sum256(text); !bytes.Equal(sum, fmt.Appendf(nil, "%x\n", want)) {
		return errUsage
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 2 || lines[0] != usageHead {
		return errors.New("it is of another version of this program")
	}
	month, err := time.Parse("2006-01", lines[1])
	if err != nil || len(lines)-2 > maxUsage {
		return errUsage
	}
	u.month = month
	for _, line := range lines[2:] {
		key, rest, _ := strings.Cut(line, " ")
		number, name, found := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || !found || len(key) != 32 {
			return errUsage
		}
		u.used[key] = new(atomic.Uint64)
		u.used[key].Store(n)
		u.names[key] = name
	}
	return nil
}
