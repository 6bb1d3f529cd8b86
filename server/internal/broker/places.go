package broker

import (
	"maps"
	"slices"

	"github.com/netport/netport/proto/wire"
)

// place is where a relay takes legs, and which.
type place struct {
	wire.OtherRelay
	transports wire.Transports
	version    int // rises with every change of any place
}

// place remembers where a relay takes legs, for all other relays, and tells it
// where they are. What a relay said stays good while it is away: it may forward
// all the same.
func (b *Broker) place(r *relay) {
	p := place{
		OtherRelay: wire.OtherRelay{
			Addresses: r.addresses, First: r.ready.First, Last: r.ready.Last,
			SharedTCP: r.ready.SharedTCP, SharedUDP: r.ready.SharedUDP,
		},
		transports: r.ready.Transports,
	}
	if len(p.Addresses) > 0 && !samePlace(b.places[r.name], p) {
		b.placed++
		p.version = b.placed
		b.places[r.name] = p
		for _, other := range b.relays {
			if other != r && other.usable() {
				b.tellPlaces(other)
			}
		}
	}
	b.tellPlaces(r)
}

// tellPlaces tells a relay where the others are.
func (b *Broker) tellPlaces(r *relay) {
	var list []wire.OtherRelay
	for _, name := range slices.Sorted(maps.Keys(b.places)) {
		if name != r.name {
			list = append(list, b.places[name].OtherRelay)
		}
	}
	for {
		n := min(len(list), wire.MaxOthers)
		b.toRelay(r.name, wire.OtherRelays{More: n < len(list), Relays: list[:n:n]})
		if list = list[n:]; len(list) == 0 {
			return
		}
	}
}

func samePlace(a, b place) bool {
	return slices.Equal(a.Addresses, b.Addresses) && a.First == b.First && a.Last == b.Last &&
		a.SharedTCP == b.SharedTCP && a.SharedUDP == b.SharedUDP && a.transports == b.transports
}
