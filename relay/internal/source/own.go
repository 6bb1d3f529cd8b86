package source

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownMaxAge is how long the list of the machine's addresses is used.
const ownMaxAge = 10 * time.Second

// Machine knows the addresses of this machine's interfaces. It reads them
// anew when its list is older than 10 seconds. The zero Machine is ready to
// use, from any goroutine.
type Machine struct {
	mu    sync.Mutex // guards the following
	read  time.Time
	addrs map[netip.Addr]bool
}

// Has reports whether a is an address of this machine. When the interfaces
// cannot be read, the last list stands.
func (m *Machine) Has(a netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.read) > ownMaxAge {
		m.read = now
		m.readLocked()
	}
	return m.addrs[a.Unmap().WithZone("")]
}

func (m *Machine) readLocked() {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	m.addrs = make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				m.addrs[ip.Unmap()] = true
			}
		}
	}
}
