//go:build !windows

package supervise

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listeners returns the listeners that the service manager hands over: with a socket
// unit it has opened the daemon's ports, and holds them while the daemon restarts. They
// can be had once.
func Listeners() (list []*net.TCPListener, err error) {
	files := activation.Files(true)
	for i, f := range files {
		l, err := tcpListener(f)
		f.Close()
		if err != nil {
			for _, l := range list {
				l.Close()
			}
			for _, f := range files[i+1:] {
				f.Close()
			}
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func tcpListener(f *os.File) (*net.TCPListener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take the socket %s of the service manager: %w", f.Name(), err)
	}
	if tcp, ok := l.(*net.TCPListener); ok {
		return tcp, nil
	}
	l.Close()
	return nil, fmt.Errorf("take the socket %s of the service manager: it is no TCP port (ListenStream=PORT in the socket unit)", f.Name())
}
