//go:build unix

package identity

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestPipesAreNotWaitedFor would hang, and not fail, if a pipe were opened as a
// file is: nobody ever writes to it.
func TestPipesAreNotWaitedFor(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadKey(fifo)
	wantError(t, "a pipe", err, fifo, "not a regular file")
	f, err := openFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestFileThatBecomesAPipe exchanges a key for a pipe, to and fro, while it is
// read: between the look at the file and its opening it may be either.
func TestFileThatBecomesAPipe(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	dir := t.TempDir()
	key, fifo, at := filepath.Join(dir, "key"), filepath.Join(dir, "fifo"), filepath.Join(dir, "at")
	if err := SaveKey(key, ca.key); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, target := range []string{fifo, key} {
				os.Symlink(target, at+".new")
				os.Rename(at+".new", at)
			}
		}
	}()
	var keys, pipes int
	for ctx.Err() == nil {
		if _, err := LoadKey(at); err == nil {
			keys++
		} else if !errors.Is(err, fs.ErrNotExist) {
			pipes++
		}
	}
	<-done
	if keys == 0 || pipes == 0 {
		t.Errorf("read %d keys and refused %d times; want both", keys, pipes)
	}
}

func TestKeyOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file to somebody else")
	}
	ca := newCA(t, nil, "CA", nil)
	dir := t.TempDir()
	key, link := filepath.Join(dir, "key.pem"), filepath.Join(dir, "link")
	if err := SaveKey(key, ca.key); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(key, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(key, link); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{key, link} {
		_, err := LoadKey(file)
		wantError(t, "a key of nobody", err, file, "belongs to user 65534", "chown 0 ")
	}
}

func TestFilesAreAsOpenAsAskedWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o777, 0o077} {
		func() {
			dir := t.TempDir()
			defer syscall.Umask(syscall.Umask(umask))
			file := filepath.Join(dir, "f")
			if err := CreateFile(file, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("umask %04o: mode %v, %v; want 0600", umask, info.Mode(), err)
			}
		}()
	}
}

// TestKeyBelowAFolderOfEverybodyIsRefused: whoever can write there can put another key in
// its place, whatever its mode.
func TestKeyBelowAFolderOfEverybodyIsRefused(t *testing.T) {
	ca := newCA(t, nil, "CA", nil)
	dir := t.TempDir()
	key := filepath.Join(dir, "keys", "key.pem")
	if err := os.Mkdir(filepath.Dir(key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := SaveKey(key, ca.key); err != nil {
		t.Fatal(err)
	}
	for _, open := range []string{dir, filepath.Dir(key)} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(key)
		wantError(t, open+" of mode 0777", err, key, "chmod go-w "+open)
		if err := os.Chmod(open, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadKey(key); err != nil {
		t.Error(err)
	}
}
