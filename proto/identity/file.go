package identity

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/netport/netport/proto/folder"
)

// maxFile is the largest key, certificate or CA file that is read, in bytes.
const maxFile = 1 << 20

// ReadFile reads a small regular file: no directory, pipe or device, at most
// 1 MiB.
func ReadFile(file string) ([]byte, error) { return ReadFileLimit(file, maxFile) }

// ReadFileLimit is ReadFile with a limit of its own, in bytes.
func ReadFileLimit(file string, limit int64) ([]byte, error) {
	return readFile(file, limit, func(string, fs.FileInfo) error { return nil })
}

// ReadSecret is ReadFile for a file that only its owner can use, and that belongs to
// the user of this process or to root.
func ReadSecret(file string) ([]byte, error) { return readFile(file, maxFile, folder.CheckSecret) }

// readFile reads a regular file that passes check.
func readFile(file string, limit int64, check func(file string, info fs.FileInfo) error) ([]byte, error) {
	b, err := readChecked(file, limit, check)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, reason(err))
	}
	return b, nil
}

func readChecked(file string, limit int64, check func(file string, info fs.FileInfo) error) ([]byte, error) {
	// Looked at before it is opened, for opening a device may do something,
	// and again once it is open: it may have become another file meanwhile.
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(info); err != nil {
		return nil, err
	}
	f, err := openFile(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkRegular(info); err != nil {
		return nil, err
	}
	if err := check(file, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, nil
}

func checkRegular(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	return nil
}

// CreateFile writes a new file with exactly the given mode and flushes it to
// disk; it never overwrites one. After a crash, or a kill at any moment, it is
// there whole or not at all.
func CreateFile(file string, b []byte, mode fs.FileMode) error {
	err := writeFile(file, b, mode, claim)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write %s: it exists already; move it away or name another folder", file)
	}
	return err
}

// ReplaceFile writes a file so that after a crash it is the old one or the new
// one, whole.
func ReplaceFile(file string, b []byte, mode fs.FileMode) error {
	return writeFile(file, b, mode, os.Rename)
}

// writeFile writes and flushes a temporary file, and has name give it the right name.
func writeFile(file string, b []byte, mode fs.FileMode, name func(from, to string) error) error {
	f, err := folder.Create(filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+"."+rand.Text()), mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask took or left
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = name(f.Name(), file)
	}
	if err == nil {
		err = SyncFolder(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, reason(err))
	}
	return nil
}

// claim gives a file a further name that nothing has yet. Where the file system
// knows no such names (FAT), the file is renamed.
func claim(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fs.ErrExist, err)
	}
	return os.Rename(from, to)
}

// SyncFolder makes what was renamed in a folder, or made there, last.
func SyncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be flushed there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush folder %s: %w", dir, err)
	}
	return nil
}

// reason strips the paths that package os puts before its errors: the caller
// names the file already.
func reason(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return le.Err
	}
	return err
}
