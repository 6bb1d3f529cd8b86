package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

// storageKey is where the TPM's owner has a storage key persistently, if there is one
// (TCG TPM v2.0 Provisioning Guidance, section 7.8).
const storageKey = tpm2.TPMHandle(0x81000001)

// session is the open device, and what is loaded there.
type session struct {
	tpm    *patient
	of     *key // that is loaded; nil: none
	key    tpm2.NamedHandle
	loaded []tpm2.TPMHandle // to be flushed
}

// open opens a device file or a Unix socket.
func open(path string, end time.Time) (*session, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New(`there is none: name its device, with "tpm" in the configuration or with join's --tpm`)
	case err != nil:
		return nil, bare(err)
	case info.Mode()&fs.ModeSocket != 0:
		conn, err := dial(path, end)
		if err != nil {
			return nil, bare(err)
		}
		s := &session{tpm: &patient{TPMCloser: raw{conn}, conn: conn}}
		s.tpm.until(end)
		return s, nil
	case info.Mode()&fs.ModeCharDevice == 0:
		return nil, errors.New("it is neither a device nor a socket")
	}
	// Not os.OpenFile: that would make the device one that does not block, and its
	// kernel driver one with other rules.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, bare(err)
	}
	s := &session{tpm: &patient{TPMCloser: raw{os.NewFile(uintptr(fd), path)}}}
	s.tpm.until(end)
	return s, nil
}

// dial connects to a socket. Who serves it may be about to take others first, for
// which it has little room: connections are refused then that would be taken in a moment.
func dial(path string, end time.Time) (net.Conn, error) {
	for pause := firstPause; ; pause *= 2 {
		conn, err := net.DialTimeout("unix", path, time.Until(end))
		if !errors.Is(err, syscall.EAGAIN) || time.Now().Add(pause).After(end) {
			return conn, err
		}
		<-time.After(pause)
	}
}

// bare leaves of an error that repeats the name of the device what was wrong, and says
// what to do.
func bare(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return errors.New("a portal gives back what root may do more than others: run it as a user of the group tss, which has the device on most systems")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("user %d has no right to it: add that user to the group tss, which has it on most systems", os.Geteuid())
	case errors.Is(err, syscall.EBUSY):
		return errors.New("another program has it alone: use the device that shares it, such as " + Device)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// close leaves nothing behind: a socket has no resource manager that would flush what
// was loaded.
func (s *session) close() {
	for len(s.loaded) > 0 {
		last := len(s.loaded) - 1
		s.flush(s.loaded[last])
		s.loaded = s.loaded[:last]
	}
	s.tpm.Close()
}

// flush ignores errors: a TPM that is gone has lost the handle as well.
func (s *session) flush(h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(s.tpm)
}

// parent returns the key that wraps others, by its handle in a key file: a persistent
// one, or the owner's primary, which comes out the same each time it is made.
func (s *session) parent(handle tpm2.TPMHandle) (tpm2.AuthHandle, error) {
	if handle != tpm2.TPMRHOwner {
		rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(s.tpm)
		if err != nil {
			return tpm2.AuthHandle{}, err
		}
		return tpm2.AuthHandle{Handle: handle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)}, nil
	}
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(primaryTemplate),
	}.Execute(s.tpm)
	if err != nil {
		return tpm2.AuthHandle{}, err
	}
	s.loaded = append(s.loaded, rsp.ObjectHandle)
	return tpm2.AuthHandle{Handle: rsp.ObjectHandle, Name: rsp.Name, Auth: tpm2.PasswordAuth(nil)}, nil
}

// make makes a key.
func (s *session) make(k *key) ([]byte, error) {
	k.parent = storageKey
	parent, err := s.parent(k.parent)
	if errors.Is(err, tpm2.TPMRCHandle) {
		k.parent = tpm2.TPMRHOwner
		parent, err = s.parent(k.parent)
	}
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(keyTemplate)}.Execute(s.tpm)
	if err != nil {
		return nil, err
	}
	k.public, k.private = rsp.OutPublic, rsp.OutPrivate
	if k.ecdsa, err = publicKey(k.public); err != nil {
		return nil, err
	}
	return keyFile{Parent: int64(k.parent), Public: tpm2.Marshal(k.public), Private: tpm2.Marshal(k.private)}.encode()
}

// load loads a key. The primary above it is not needed any more then.
func (s *session) load(k *key) error {
	parent, err := s.parent(k.parent)
	if err != nil {
		return err
	}
	rsp, err := tpm2.Load{ParentHandle: parent, InPrivate: k.private, InPublic: k.public}.Execute(s.tpm)
	if err != nil {
		return err
	}
	s.of, s.key = k, tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}
	s.loaded = append(s.loaded, rsp.ObjectHandle)
	return nil
}
