package direct

import (
	"net/netip"
	"slices"
	"sort"
	"time"

	"github.com/netport/netport/portal/internal/outside"
)

// natTime is for how long it counts what somebody has seen: a NAT gives other ports after
// it has forgotten the old ones.
const natTime = 10 * time.Minute

// sighting is where somebody sees this portal.
type sighting struct {
	outside.Sighting
	at time.Time
}

// NAT returns what relays and peers have shown of the NATs on the way to this portal.
func (f *Finder) NAT() outside.Mapping {
	var list []sighting
	for _, m := range f.Paths.Mapped() {
		list = append(list, sighting{outside.Sighting{By: m.Relay, At: m.Addr}, m.At})
	}
	f.mu.Lock()
	all := f.allLocked()
	f.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		for _, x := range p.search.pairs {
			if x.seen.IsValid() {
				list = append(list, sighting{outside.Sighting{By: x.addr, At: x.seen}, x.answered})
			}
		}
		p.mu.Unlock()
	}
	return judge(list, f.hosts(false), time.Now())
}

// judge says what NATs there are by what was seen of this portal, which has these addresses. What neighbours
// see says nothing of a NAT.
func judge(list []sighting, hosts []netip.Addr, now time.Time) outside.Mapping {
	sort.SliceStable(list, func(i, j int) bool { return list[i].at.After(list[j].at) })
	var counts []outside.Sighting
	for _, s := range list {
		if now.Sub(s.at) <= natTime && !s.By.Addr().IsPrivate() {
			counts = append(counts, s.Sighting)
		}
	}
	m, _ := outside.Judge(counts, func(a netip.Addr) bool { return slices.Contains(hosts, a) })
	return m
}
