//go:build !windows

package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// Ports are those that the service manager hands over: with a socket unit it has opened the
// daemon's ports, and holds them while the daemon restarts.
type Ports struct {
	TCP []*net.TCPListener
	UDP []*net.UDPConn
}

// Close closes them.
func (p *Ports) Close() {
	for _, l := range p.TCP {
		l.Close()
	}
	for _, c := range p.UDP {
		c.Close()
	}
}

// TakePorts returns the ports that the service manager hands over. They can be had once.
func TakePorts() (*Ports, error) {
	files := activation.Files(true)
	p := &Ports{}
	for i, f := range files {
		err := p.take(f)
		f.Close()
		if err != nil {
			p.Close()
			for _, f := range files[i+1:] {
				f.Close()
			}
			return nil, fmt.Errorf("take the socket %s of the service manager: %w", f.Name(), err)
		}
	}
	return p, nil
}

// take takes one port: what does not listen is one of UDP.
func (p *Ports) take(f *os.File) error {
	if c, err := net.FilePacketConn(f); err == nil {
		if udp, ok := c.(*net.UDPConn); ok {
			p.UDP = append(p.UDP, udp)
			return nil
		}
		c.Close()
		return errNoPort
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	if tcp, ok := l.(*net.TCPListener); ok {
		p.TCP = append(p.TCP, tcp)
		return nil
	}
	l.Close()
	return errNoPort
}

var errNoPort = errors.New("it is no port of TCP or UDP (ListenStream=PORT or ListenDatagram=PORT in the socket unit)")
