package broker

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Which relay a pair of portals meets at. A pin of the policy leaves one. Else
// the relays are put in order, and the first that takes the session has it. The
// order is by class, within a class by cost, and then by name, so that the same
// figures always choose the same. A relay that has as many sessions as it takes is not
// asked, nor is one that drains or has just left a request unanswered.
//
// The classes, best first:
//
//	measured    both portals have measured their round trip to it
//	unmeasured  one of them has not: it may be anywhere, so it comes after what is known
//	crowded     nine tenths of its capacity are in use: the rest is for who has
//	            no other choice, such as the sessions of a relay that stops
//	silent      it did not answer one of them, and will hardly carry for it
//	lost        one of them says that it has just lost the other there
//
// The cost is a time:
//
//	one's round trip + the other's + busyCost * u/(1-u) + rateCost * rate
//
// The two round trips are what a packet takes through the relay to the other side
// and back. u is the share of the capacity in use, and u/(1-u) the queue before
// somebody who is busy for that share of the time: nothing while there is room for all
// (1 ms at 5 %), a neighbouring country at one half (20 ms), an ocean when it
// is nearly full (180 ms at 90 %). So relays that are equally near share the load evenly, and
// one that is far helps out when the near ones need it. The rate, in Gbit/s, of
// which an ordinary machine carries a few, counts little: it parts relays of which one has
// few sessions that carry much.
const (
	busyCost = 20 * time.Millisecond
	rateCost = 10 * time.Millisecond // for each Gbit/s
	// crowdedShare is the share of the capacity from which on a relay is crowded.
	crowdedShare = 0.9
)

const (
	classMeasured = iota
	classUnmeasured
	classCrowded
	classSilent
	classLost
	classAway // of tickets alone
)

// rank is a relay's place in the order; the least comes first.
type rank struct {
	class int
	cost  time.Duration
	name  string
}

func (k rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(k.class, o.class), cmp.Compare(k.cost, o.cost), cmp.Compare(k.name, o.name))
}

// pick returns the relay to ask next for s, or nil.
func (b *Broker) pick(now time.Time, s *session) *relay {
	pin := b.grants.Pin(s.names[0], s.names[1], now)
	portals := b.two(s.names[0], s.names[1])
	var best *relay
	var first rank
	for _, r := range b.relays {
		if pin != "" && r.name != pin || !r.takes() || s.tried[r.name] || now.Before(r.avoid) || r.held() >= uint64(r.ready.Capacity) {
			continue
		}
		if k := r.rank(portals, s.lost); best == nil || k.compare(first) < 0 {
			best, first = r, k
		}
	}
	return best
}

// two returns two portals, nil for one of which nothing is known.
func (b *Broker) two(x, y string) [2]*portal { return [2]*portal{b.portals[x], b.portals[y]} }

func (r *relay) rank(portals [2]*portal, lost [2]string) rank {
	k := distance(r.name, portals)
	if r.name == lost[0] || r.name == lost[1] {
		k.class = classLost
	}
	share := float64(r.held()) / float64(r.ready.Capacity)
	if share >= crowdedShare {
		k.class = max(k.class, classCrowded)
		share = crowdedShare
	}
	k.cost += time.Duration(float64(busyCost)*share/(1-share) + float64(rateCost)*float64(r.load.Rate)*8/1e9)
	return k
}

// distance ranks a relay by the round trips of two portals.
func distance(relay string, portals [2]*portal) rank {
	k := rank{name: relay}
	for _, p := range portals {
		var trip time.Duration
		ok := false
		if p != nil {
			trip, ok = p.times[relay]
		}
		switch {
		case !ok:
			k.class = max(k.class, classUnmeasured)
		case trip == 0:
			k.class = max(k.class, classSilent)
		}
		k.cost += trip
	}
	return k
}

// takes reports whether a relay may be asked for sessions.
func (r *relay) takes() bool { return r.usable() && !r.draining }

func (r *relay) usable() bool { return r.online && r.ready != nil && len(r.addresses) > 0 }

// held is how many sessions the relay has, as it says or as we know: what it
// says is late, and what we know is not all after a restart.
func (r *relay) held() uint64 { return max(uint64(r.ours), uint64(r.load.Sessions)) }

// HasRelay reports whether a relay is there that could be asked.
func (b *Broker) HasRelay() bool {
	for _, r := range b.relays {
		if r.takes() {
			return true
		}
	}
	return false
}

// noRelay says why pick found none.
func (b *Broker) noRelay(now time.Time, s *session) (wire.Reason, string) {
	pin := b.grants.Pin(s.names[0], s.names[1], now)
	if pin != "" {
		const want = "the policy lets these portals meet at the relay "
		if r := b.relays[pin]; r == nil || !r.takes() {
			return wire.ReasonNoRelay, want + pin + " alone, and it is not connected to the server"
		}
		return wire.ReasonRelayRefused, want + pin + " alone, and it would not hold the session"
	}
	if b.HasRelay() {
		return wire.ReasonRelayRefused, "no relay would hold the session"
	}
	return wire.ReasonNoRelay, "no relay is connected to the server"
}

// Times takes a portal's round trips to relays. They stand in the place of those
// before, and are forgotten with its connection. A message holds no more than
// wire.MaxPlaces of them.
func (b *Broker) Times(name string, m wire.RelayTimes) {
	p := b.portals[name]
	if p == nil || !p.online {
		return
	}
	p.times = make(map[string]time.Duration, len(m.Times))
	for _, t := range m.Times {
		p.times[t.Relay] = t.Time
	}
}

// measured returns how many portals a relay answered, how many it did not, and
// the median of the round trips.
func (b *Broker) measured(relay string) (answered, silent int, median Milliseconds) {
	var list []time.Duration
	for _, p := range b.portals {
		switch trip, ok := p.times[relay]; {
		case ok && trip > 0:
			list = append(list, trip)
		case ok:
			silent++
		}
	}
	if len(list) == 0 {
		return 0, silent, 0
	}
	slices.Sort(list)
	return len(list), silent, milliseconds(list[len(list)/2])
}

// maxPlaceAddresses is how many addresses of a relay portals are told to measure
// it: MaxPlaces relays with all of theirs would not fit into a message.
const maxPlaceAddresses = 4

// Places returns where portals can measure the relays that take sessions, by name: at
// the shared TCP port, the one that is always open. A relay without one is not
// among them.
func (b *Broker) Places() []wire.RelayPlace {
	var list []wire.RelayPlace
	for _, name := range slices.Sorted(maps.Keys(b.relays)) {
		r := b.relays[name]
		if !r.takes() || r.ready.SharedTCP == 0 {
			continue
		}
		list = append(list, wire.RelayPlace{
			Name: name, Addresses: r.addresses[:min(len(r.addresses), maxPlaceAddresses)], Port: r.ready.SharedTCP,
		})
		if len(list) == wire.MaxPlaces {
			break
		}
	}
	return list
}
