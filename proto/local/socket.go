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
// user, root, or one of the socket's users.
type Socket struct {
	*net.UnixListener
	// Refused is told why a caller was turned away, if it is not nil. It is set before
	// Accept is called.
	Refused func(error)

	lock  *os.File
	users []int
}

// ListenSocket takes the socket at path for this process. Its folder must exist, and
// others must not be able to write in it or to put another in its place.
func ListenSocket(path string) (*Socket, error) { return listenSocket("unix", path, nil) }

// ListenPackets is ListenSocket for a socket that keeps what is sent to it apart, as
// packets (SOCK_SEQPACKET), and that these users may call, too, by their ids. If there are
// any everybody can connect, and who may not is turned away then: no group has all of
// them as its members.
func ListenPackets(path string, users ...int) (*Socket, error) {
	return listenSocket("unixpacket", path, users)
}

// CheckPath refuses a path that no socket can have.
func CheckPath(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("the path has %d bytes, at most %d are possible; choose a shorter one", len(path), maxPath)
	}
	return nil
}

func listenSocket(network, path string, users []int) (*Socket, error) {
	if err := CheckPath(path); err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	if err := folder.CheckPrivate(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	lock, err := takeLock(path+".lock", "give this one a socket of its own")
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	l, err := listen(network, path)
	if err == nil && len(users) > 0 {
		if err = os.Chmod(path, 0o666); err != nil {
			l.Close()
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	return &Socket{UnixListener: l, lock: lock, users: users}, nil
}

func listen(network, path string) (*net.UnixListener, error) {
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
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
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
		if _, err = checkPeer(c, s.users...); err == nil {
			return c, nil
		}
		c.Close()
		if s.Refused != nil {
			s.Refused(err)
		}
	}
}

// Close removes the socket and gives its path back.
func (s *Socket) Close() error {
	return errors.Join(s.UnixListener.Close(), s.lock.Close())
}
