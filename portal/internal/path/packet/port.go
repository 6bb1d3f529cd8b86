package packet

import (
	"errors"
	"net"
	"net/netip"
)

// ErrTaken is the error of Port.Open where the address has an Endpoint already.
var ErrTaken = errors.New("the address is in use for another session")

// Prober takes probes (package probe), which come from addresses that have no Endpoint,
// or a direct one. Its methods are called by the readers and writers of sockets, and
// must not block.
type Prober interface {
	// Probe takes a packet that has the shape of a probe and is proven by nothing yet. It
	// must not keep it. It may send at once, and open Endpoints: what comes right behind
	// the packet finds them.
	Probe(at *Port, from netip.AddrPort, packet []byte)
	// Replaced tells that a shared socket has been replaced, perhaps at another port.
	Replaced()
}

// Port is the shared socket of one IP version, held open. Its methods are safe for
// concurrent use.
type Port struct {
	sockets *Sockets
	line    *line
}

// Serve has a Prober take probes from now on; before, and after Serve(nil), they are
// strangers' packets.
func (s *Sockets) Serve(p Prober) {
	if p == nil {
		s.prober.Store(nil)
		return
	}
	s.prober.Store(&p)
}

// Hold opens the shared socket of the IP version of an address, if it is not open, and
// keeps it open until Release.
func (s *Sockets) Hold(of netip.Addr) (*Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.sharedLocked(networkOf(of))
	if err != nil {
		return nil, err
	}
	l.held++
	return l.port, nil
}

// Release lets the socket be closed when it was not needed for long.
func (p *Port) Release() {
	p.sockets.mu.Lock()
	p.line.held--
	p.sockets.restLocked(p.line)
	p.sockets.mu.Unlock()
}

// Local returns the local port.
func (p *Port) Local() uint16 {
	return p.line.conn.socket.Load().LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// Send sends a packet that is not QUIC's, to an address that may lead nowhere.
func (p *Port) Send(packet []byte, to netip.AddrPort) { p.line.hint(packet, to) }

// Open returns a direct Endpoint for another portal's address: QUIC is taken from
// there, and probes; connections that the other side dials wait in inbox.
func (p *Port) Open(peer netip.AddrPort, inbox *Inbox) (*Endpoint, error) {
	p.sockets.mu.Lock()
	defer p.sockets.mu.Unlock()
	switch {
	case p.sockets.closed:
		return nil, errStopping
	case p.line.endpoint(peer) != nil:
		return nil, ErrTaken
	}
	return p.sockets.addLocked(p.line, peer, nil, inbox), nil
}
