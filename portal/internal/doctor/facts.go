// Package doctor finds out why a portal does not work, or not as well as it could, on its
// machine and in its network, and says what to do and what to have a firewall's owner open.
//
//	machine, network --Examine--> Facts --Judge--> Report
//
// Examine looks and has no opinion; Judge has all opinions and all words, and looks at
// nothing. It needs no rights and changes nothing, but that a daemon without any tunnel is
// asked to open one, which ends by itself. Where the daemon runs, its connection to the
// server is left alone, and of its tickets only those are used that it does not use.
package doctor

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/netport/netport/portal/internal/daemon"
	"github.com/netport/netport/proto/proxy"
)

// Facts are what Examine has found.
type Facts struct {
	Config  string          // file
	Proxy   *proxy.Settings // of the configuration
	Invalid error           // why it cannot be used; then nothing else is known
	Files   []File
	Begins  time.Time // the certificate; zero: it could not be read
	Ends    time.Time
	Now     time.Time // by the clock of the machine

	Daemon  *daemon.Known // what the running one knows; nil: there is none, or it does not answer
	Silent  error         // why it does not answer; nil: there is none
	Met     error         // why it opened no tunnel when it was asked to; nil also where it was not
	Greeted error         // why no server has greeted this portal, where that was tried
	Told    bool          // a server has told the time
	Ahead   time.Duration // the clock of the machine, against that; negative: behind

	Maps     bool   // the configuration lets the router be asked to map ports
	Protocol string // by which it does; empty: by none
	Unmapped error  // why not

	Names   []Name
	Servers []Server
	Relays  []Relay
	Local   map[netip.Addr]bool // addresses of this machine towards relays
}

// known is what the daemon knows; nothing where there is none. It reads no other field: others may be
// written meanwhile.
func (f *Facts) known() daemon.Known {
	if f.Daemon == nil {
		return daemon.Known{}
	}
	return *f.Daemon
}

// File is one file or folder that a portal needs, and why it cannot be used.
type File struct {
	What string // for people
	Path string
	Err  error
}

// Name is the look-up of a server's name.
type Name struct {
	Host    string
	Addrs   []netip.Addr
	Took    time.Duration
	Err     error
	Earlier []netip.Addr // where the server of that name has proven itself before
}

// Fault is how an attempt to connect has failed.
type Fault int

// The faults.
const (
	None        Fault = iota
	Silent            // nothing answers
	Refused           // a reset answers
	Unreachable       // there is no way, or a router says so
	Swallowed         // the connection opens, and TLS is not answered
	Cut               // the connection opens, and ends when TLS begins
	NoTLS             // something answers that is not TLS
	Foreign           // a certificate of somebody else
	Stranger          // TLS is answered by what does not speak this protocol
	AtProxy           // a proxy is not reached, or makes no connection: as the error says
	OtherFault        // as the error says
)

// Try is one attempt to reach a port.
type Try struct {
	Fault Fault
	Err   error
	Took  time.Duration // a round trip; zero where Fault is not None
}

// Server is one address of a server.
type Server struct {
	Host  string // as it is configured, or was told
	Port  uint16
	Named bool           // the port was; else it is one of those that are tried
	Addr  netip.AddrPort // not valid of a name that a proxy looks up
	Proxy string         // through which it is tried; empty: none
	Try
	Proven  string // the name in its certificate; empty: it has shown none that is right
	UDP     bool   // it was proven over UDP; Try is what became of TCP
	Shown   string // whose certificate was shown that is not the server's
	Issuer  string // of that
	Said    string // what a server that does not speak TLS answers
	Earlier bool   // the address is not that of the name, but from an earlier time
}

// place is what is dialled for a server.
func (s Server) place() string {
	if s.Addr.IsValid() {
		return s.Addr.String()
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
}

// Relay is one address of a relay.
type Relay struct {
	Name    string
	Addr    netip.Addr
	Proxy   string // through which it is tried, over TCP alone; empty: none
	TCPPort uint16 // 0: there is none to try
	TCP     Try
	TLS     Try    // as a leg begins it there, where TCP was reached: whether it is this relay
	UDPPort uint16 // 0: there is none, or no ticket to ask with
	UDP     Try
	Mapped  netip.AddrPort // where the relay sees this machine; invalid: not known
	MTU     int            // largest packet on the way, as far as routers tell; 0: not known
}
