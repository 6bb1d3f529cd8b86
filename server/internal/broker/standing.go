package broker

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// What a relay's shared ports can take.
const (
	overTCP = wire.TransportSplice | wire.TransportTLS
	overUDP = wire.TransportUDP
)

// Standing returns the n best relays at whose shared ports two portals can meet
// without a server, and whether both portals have measured: if not, the order
// may be worth looking over when they have. It is for the time when we are away, so what a
// relay is loaded with now does not count, and one that is away itself, or drains,
// comes last.
func (b *Broker) Standing(now time.Time, x, y string, n int) (relays []string, measured bool) {
	portals := b.two(x, y)
	measured = true
	for _, p := range portals {
		measured = measured && p != nil && p.times != nil
	}
	pin := b.grants.Pin(x, y, now)
	var list []rank
	for name := range b.places {
		if _, set, _ := b.Shared(name); set == 0 || pin != "" && pin != name {
			continue
		}
		k := distance(name, portals)
		if r := b.relays[name]; r == nil || !r.takes() {
			k.class = classAway
		}
		list = append(list, k)
	}
	slices.SortFunc(list, rank.compare)
	for _, k := range list[:min(n, len(list))] {
		relays = append(relays, k.name)
	}
	return relays, measured
}

// Shared returns where a relay's shared ports are and what they take; nothing if
// it has none. version changes when any of it does.
func (b *Broker) Shared(relay string) (access wire.RelayAccess, set wire.Transports, version int) {
	p, ok := b.places[relay]
	if !ok {
		return wire.RelayAccess{}, 0, 0
	}
	if p.SharedTCP != 0 {
		set |= p.transports & overTCP
	}
	if p.SharedUDP != 0 {
		set |= p.transports & overUDP
	}
	return wire.RelayAccess{Name: relay, Addresses: p.Addresses, SharedTCP: p.SharedTCP, SharedUDP: p.SharedUDP}, set, p.version
}

// Placed counts the changes of where relays are.
func (b *Broker) Placed() int { return b.placed }
