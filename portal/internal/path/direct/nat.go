package direct

import (
	"net/netip"
	"slices"
	"sort"
	"time"
)

// natTime is for how long it counts what somebody has seen: a NAT gives other ports after
// it has forgotten the old ones.
const natTime = 10 * time.Minute

// Mapping is what the NATs between this portal and others do to its IPv4 address
// (RFC 4787 section 4.1).
type Mapping uint8

// The mappings.
const (
	MappingUnknown     Mapping = iota // nobody has said over UDP where it sees this portal
	MappingNone                       // this portal is seen at an address of its own
	MappingSome                       // there is a NAT, and one has seen it only
	MappingIndependent                // all see the same address and port: others can be told it
	MappingDependent                  // each sees another ("symmetric"): it is good for that one alone
)

func (m Mapping) String() string {
	return [...]string{"not known", "no NAT", "a NAT", "NAT, endpoint-independent", "NAT, endpoint-dependent (symmetric)"}[m]
}

// NAT is what is known of the NATs on the way to this portal. What they let in is not
// measured: whether a way opens shows that.
type NAT struct {
	Mapping Mapping
	Seen    []netip.AddrPort // where this portal was seen, each once, the newest first
}

// sighting is where somebody sees this portal.
type sighting struct {
	by, addr netip.AddrPort
	at       time.Time
}

// NAT returns what relays and peers have shown.
func (f *Finder) NAT() NAT {
	var list []sighting
	for _, m := range f.Paths.Mapped() {
		list = append(list, sighting{m.Relay, m.Addr, m.At})
	}
	f.mu.Lock()
	all := f.allLocked()
	f.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		for _, x := range p.search.pairs {
			if x.seen.IsValid() {
				list = append(list, sighting{x.addr, x.seen, x.answered})
			}
		}
		p.mu.Unlock()
	}
	return judge(list, f.hosts(false), time.Now())
}

// judge says what NATs there are by what was seen of this portal, which has these
// addresses.
func judge(list []sighting, hosts []netip.Addr, now time.Time) (n NAT) {
	list = slices.DeleteFunc(list, func(s sighting) bool {
		return !s.addr.Addr().Is4() || now.Sub(s.at) > natTime || s.by.Addr().IsPrivate()
	})
	sort.SliceStable(list, func(i, j int) bool { return list[i].at.After(list[j].at) })
	var by []netip.AddrPort
	bare := true
	for _, s := range list {
		if slices.Contains(by, s.by) {
			continue // it has seen another before
		}
		by = append(by, s.by)
		bare = bare && slices.Contains(hosts, s.addr.Addr())
		if !slices.Contains(n.Seen, s.addr) {
			n.Seen = append(n.Seen, s.addr)
		}
	}
	switch {
	case len(by) == 0:
		n.Mapping = MappingUnknown
	case bare:
		n.Mapping = MappingNone
	case len(n.Seen) > 1:
		n.Mapping = MappingDependent
	case len(by) > 1:
		n.Mapping = MappingIndependent
	default:
		n.Mapping = MappingSome
	}
	return n
}
