package local

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/netport/netport/proto/folder"
)

// Socket is a listening Unix socket by the rules of this package, for another
// protocol than that of a Server. Accept returns only callers who are the daemon's
// user or root.
type Socket struct {
	*net.UnixListener
	lock *os.File
}

// ListenSocket takes the socket at path for this process. Its folder must exist, and
// others must not be able to write in it or to put another in its place.
func ListenSocket(path string) (*Socket, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on socket %s: the path has %d bytes, at most %d are possible; choose a shorter one", path, len(path), maxPath)
	}
	if err := folder.CheckPrivate(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	lock, err := takeLock(path+".lock", "give this one a socket of its own")
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	l, err := listen(path)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	return &Socket{l, lock}, nil
}

func listen(path string) (*net.UnixListener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket || !ownedByUs(info):
		return nil, errors.New("something that is not a socket of ours is there; move it away or choose another path")
	default:
		// We hold the lock, so whoever made this socket is gone.
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := folder.Restrict(path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if _, err := checkPeer(c); err == nil {
			return c, nil
		}
		c.Close()
	}
}

// Close removes the socket and gives its path back.
func (s *Socket) Close() error {
	return errors.Join(s.UnixListener.Close(), s.lock.Close())
}
