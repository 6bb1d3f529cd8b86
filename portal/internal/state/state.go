// Package state keeps on disk what a portal needs to work when it is started
// while no server can be reached: its grants, the tickets by which it meets
// other portals, and how its servers are found.
//
// Nothing in the file is believed for being there. Grants are signed and
// stamped, and whoever uses them checks that again; they end with their stamps,
// by the clock, as if the portal had never been stopped. A file that is cut,
// altered or of another program is left alone until the next one takes its
// place.
package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/netport/netport/proto/identity"
)

const (
	// name is the file's, in the state folder.
	name = "portal.state"
	// gather is how long a change waits for more of its kind, and writeEvery
	// how often the file is written at most.
	gather     = 200 * time.Millisecond
	writeEvery = 5 * time.Second
	// retry is when a file that could not be written is written again.
	retry = 30 * time.Second
)

// File is the file. Changed is safe for concurrent use.
type File struct {
	path    string
	log     *slog.Logger
	changed chan struct{} // capacity 1

	// Owned by Run, once that has begun.
	sum     []byte // at the end of what the file holds
	failing bool
}

// Open reads the file in dir, which is there. It returns what was kept; of a
// file that cannot be used that is nothing, and the log says why.
func Open(dir string, log *slog.Logger) (*File, Kept) {
	f := &File{path: filepath.Join(dir, name), log: log, changed: make(chan struct{}, 1)}
	f.sweep()
	b, err := read(f.path)
	var kept Kept
	if err == nil {
		kept, err = decode(b)
	}
	switch {
	case err == nil:
		f.sum = bytes.Clone(b[len(b)-sha256.Size:])
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("going on without what was kept, until a server is reached", "file", f.path, "error", err)
	}
	return f, kept
}

// Read returns what the file in dir holds, for who only looks: a portal may be running
// with it. A file that is not there holds nothing.
func Read(dir string) (Kept, error) {
	b, err := read(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return Kept{}, nil
	}
	if err != nil {
		return Kept{}, err
	}
	return decode(b)
}

// read reads the file, if nobody but its owner could have written it.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o022 != 0 {
		return nil, fmt.Errorf("its mode %04o lets others write it; run: chmod 600 %s", mode.Perm(), path)
	}
	return identity.ReadFileLimit(path, maxFile)
}

// sweep removes what a process that was killed had begun to write.
func (f *File) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.path), "."+name+".*"))
	for _, l := range left {
		os.Remove(l)
	}
}

// Changed says that what is to be kept has changed. It never blocks.
func (f *File) Changed() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Run writes what collect returns, soon after it has changed, until ctx is
// cancelled, and then a last time.
func (f *File) Run(ctx context.Context, collect func() Kept) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	wait := func(d time.Duration) {
		timer.Reset(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	for {
		select {
		case <-f.changed:
		case <-ctx.Done():
			f.write(encode(collect()))
			return nil
		}
		wait(gather)
		if f.write(encode(collect())) {
			wait(writeEvery - gather)
		} else {
			f.Changed()
			wait(retry)
		}
	}
}

// write makes b the file, unless it is that already. It reports whether the
// file is b now, and says so when that was not possible.
func (f *File) write(b []byte) bool {
	sum := b[len(b)-sha256.Size:]
	if bytes.Equal(sum, f.sum) {
		return true
	}
	err := identity.ReplaceFile(f.path, b, 0o600)
	switch {
	case err == nil && f.failing:
		f.log.Info("state is kept again", "file", f.path)
	case err != nil && !f.failing:
		f.log.Warn("state not kept: a portal that is started without a server will not know its grants", "error", err)
	}
	f.failing = err != nil
	if err == nil {
		f.sum = bytes.Clone(sum)
	}
	return err == nil
}
