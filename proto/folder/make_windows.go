package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Make makes a folder for the user of this process and the administrators alone, and those
// above it that are missing. What is made in it is theirs alone, too. One that is there
// stays as it is.
func Make(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o700) // which says what is wrong with it
	}
	if above := filepath.Dir(dir); above != dir {
		if err := Make(above); err != nil {
			return err
		}
	}
	name, attributes, err := guardedName(dir)
	if err == nil {
		err = windows.CreateDirectory(name, attributes)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// Create makes a new file and opens it for writing. Where the mode keeps others out, so
// does its access control list: that of its folder if it does, or else one of its own.
func Create(file string, mode fs.FileMode) (*os.File, error) {
	if mode&0o077 != 0 || guarded(filepath.Dir(file)) {
		return os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	}
	name, attributes, err := guardedName(file)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, share, attributes, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	return os.NewFile(uintptr(h), file), nil
}

// guardedName is the name of something that is to be made, and how it is protected from
// its first moment on.
func guardedName(path string) (*uint16, *windows.SecurityAttributes, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, nil, err
	}
	sd, err := forUs()
	if err != nil {
		return nil, nil, err
	}
	return name, &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd}, nil
}
