package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/netport/netport/proto/endpoint"
)

// family returns the network that listens for the family of e alone: to
// Go, "tcp" at 0.0.0.0 means IPv6 as well, which nobody has granted.
func family(e endpoint.Endpoint) string {
	ap, _ := e.AddrPort()
	if ap.Addr().Is4() {
		return string(e.Scheme()) + "4"
	}
	return string(e.Scheme()) + "6"
}

// clientKeepAlive finds a client that has vanished within two minutes.
var clientKeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

func listenTCP(ctx context.Context, e endpoint.Endpoint) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: clientKeepAlive}
	if ap, ok := e.AddrPort(); ok && ap.Addr().IsLoopback() {
		// A client on this machine does not vanish: the system ends its
		// connections. Each would cost four system calls and a timer.
		c.KeepAliveConfig, c.KeepAlive = net.KeepAliveConfig{}, -1
	}
	l, err := c.Listen(ctx, family(e), e.HostPort())
	if err != nil {
		return nil, listenError(e, err)
	}
	return l, nil
}

// udpBuffer is asked of the system for a listener in each direction.
const udpBuffer = 4 << 20

func listenUDP(ctx context.Context, e endpoint.Endpoint) (*net.UDPConn, error) {
	var c net.ListenConfig
	p, err := c.ListenPacket(ctx, family(e), e.HostPort())
	if err != nil {
		return nil, listenError(e, err)
	}
	conn := p.(*net.UDPConn)
	// Best effort: the system's limit counts.
	conn.SetReadBuffer(udpBuffer)
	conn.SetWriteBuffer(udpBuffer)
	return conn, nil
}

// listenError says what went wrong and what to do about it.
func listenError(e endpoint.Endpoint, err error) error {
	err = cause(err)
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another program listens there: stop it, or change the forward's listener in the policy"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; this machine has no such address"
	case errors.Is(err, fs.ErrPermission) && e.Port() < 1024:
		hint = "; ports below 1024 need a right: use a higher port, or run setcap cap_net_bind_service=+ep on the program"
	}
	return fmt.Errorf("listen at %s: %w%s", e, err, hint)
}

// cause strips what package net puts before its errors: the caller names the
// address already.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// unixListener removes its socket when it is closed, if it is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

// listenUnix makes a socket at path, for the user of this process alone unless others
// are named elsewhere. A socket of ours that nobody serves any more is replaced, anything
// else there is left as it is.
func listenUnix(path string, others bool) (net.Listener, error) {
	if err := clear(path); err != nil {
		return nil, fmt.Errorf("listen at unix://%s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at unix://%s: %w", path, cause(err))
	}
	l.SetUnlinkOnClose(false)
	mode := fs.FileMode(0o600)
	if others {
		mode = 0o666
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at unix://%s: %w", path, err)
	}
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at unix://%s: %w", path, err)
	}
	return &unixListener{l, path, made}, nil
}

// Close closes the listener and removes the socket.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// clear makes room for a socket at path, or says why it cannot.
func clear(path string) error {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("%w; make the folder first", err)
	}
	if writableByAll(folder) {
		return fmt.Errorf("anybody may write to the folder %s and put another socket there; use a folder of your own", filepath.Dir(path))
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Mode().Type() != fs.ModeSocket || !ownedByUs(there) {
		return errors.New("something that is not a socket of ours is there; move it away, or change the forward's listener in the policy")
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return errors.New("another program listens there: stop it, or change the forward's listener in the policy")
	} else if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("a socket is there, and whether it is in use is not clear: %w", err)
	}
	return os.Remove(path)
}
