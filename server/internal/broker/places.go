package broker

import (
	"maps"
	"slices"

	"github.com/netport/netport/proto/wire"
)

// place remembers where a relay takes legs, for all other relays, and tells it
// where they are. What a relay said stays good while it is away: it may forward
// all the same.
func (b *Broker) place(r *relay) {
	p := wire.OtherRelay{
		Addresses: r.addresses, First: r.ready.First, Last: r.ready.Last,
		SharedTCP: r.ready.SharedTCP, SharedUDP: r.ready.SharedUDP,
	}
	if len(p.Addresses) > 0 && !samePlace(b.places[r.name], p) {
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
			list = append(list, b.places[name])
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

func samePlace(a, b wire.OtherRelay) bool {
	return slices.Equal(a.Addresses, b.Addresses) && a.First == b.First && a.Last == b.Last &&
		a.SharedTCP == b.SharedTCP && a.SharedUDP == b.SharedUDP
}
