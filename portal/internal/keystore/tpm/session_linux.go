package tpm

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// storageKey is where the TPM's owner has a storage key persistently, if there is one
// (TCG TPM v2.0 Provisioning Guidance, section 7.8).
const storageKey = 0x81000001

// session is the open device, and what is loaded there.
type session struct {
	tpm    *patient
	of     *key     // that is loaded; nil: none
	key    uint32   // its handle
	loaded []uint32 // to be flushed
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
		conn, err := net.DialTimeout("unix", path, time.Until(end))
		if err != nil {
			return nil, bare(err)
		}
		s := &session{tpm: &patient{transport: raw{conn}, conn: conn}}
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
	s := &session{tpm: &patient{transport: raw{os.NewFile(uintptr(fd), path)}}}
	s.tpm.until(end)
	return s, nil
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
func (s *session) flush(handle uint32) { s.tpm.do(flush(handle)) }

// parent returns the handle of the key that wraps others, by the one in a key file: it
// is persistent, or the owner's primary, which comes out the same each time it is made.
func (s *session) parent(handle uint32) (uint32, error) {
	if handle != hierarchyOwner {
		return handle, nil
	}
	return s.holds(s.tpm.do(create(codeCreatePrimary, hierarchyOwner, primaryTemplate)))
}

// holds takes the handle at the front of a response.
func (s *session) holds(r *reader, err error) (uint32, error) {
	if err != nil {
		return 0, err
	}
	handle := r.uint32()
	if r.bad {
		return 0, errAnswer
	}
	s.loaded = append(s.loaded, handle)
	return handle, nil
}

// make makes a key.
func (s *session) make(k *key) ([]byte, error) {
	k.file.Parent = storageKey
	r, err := s.tpm.do(create(codeCreate, storageKey, keyTemplate))
	if rc, ok := errors.AsType[code](err); ok && rc.bare() == codeHandle { // there is none
		k.file.Parent = hierarchyOwner
		var parent uint32
		if parent, err = s.parent(hierarchyOwner); err == nil {
			r, err = s.tpm.do(create(codeCreate, parent, keyTemplate))
		}
	}
	if err != nil {
		return nil, err
	}
	r.uint32() // length of what follows, without the sessions
	k.file.Private, k.file.Public = r.whole(), r.whole()
	if r.bad {
		return nil, errAnswer
	}
	if k.ecdsa, err = publicKey(k.file.Public); err != nil {
		return nil, err
	}
	return k.file.encode()
}

// load loads a key.
func (s *session) load(k *key) error {
	parent, err := s.parent(uint32(k.file.Parent))
	if err != nil {
		return err
	}
	if s.key, err = s.holds(s.tpm.do(load(parent, k.file))); err != nil {
		return err
	}
	s.of = k
	return nil
}

// sign signs a SHA-256 digest with the key that is loaded.
func (s *session) sign(digest []byte) (der []byte, err error) {
	r, err := s.tpm.do(signature(s.key, digest))
	if err != nil {
		return nil, err
	}
	r.uint32()
	scheme, hash, first, second := r.uint16(), r.uint16(), r.sized(), r.sized()
	if r.bad || scheme != algorithmECDSA || hash != algorithmSHA256 {
		return nil, errAnswer
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(first), new(big.Int).SetBytes(second)})
}
