package direct

import (
	"github.com/netport/netport/portal/internal/portmap"
	"github.com/netport/netport/proto/wire"
)

// mapLocked has the network's router map the ports that are open over IPv4 now, and no
// others. Where they are reached by that is one of the sources.
func (f *Finder) mapLocked() {
	if f.Map == nil {
		return
	}
	var ports []portmap.Port
	if p := f.ports[false]; p != nil {
		ports = append(ports, portmap.Port{Transport: wire.CandidateUDP, Number: p.Local()})
	}
	if d := f.doors[false]; d != nil {
		ports = append(ports, portmap.Port{Transport: wire.CandidateTCP, Number: d.port})
	}
	f.Map(ports)
}
