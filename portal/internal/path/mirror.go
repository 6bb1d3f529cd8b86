package path

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/path/packet"
)

const (
	// lookTime is for how long a leg is held bound to learn where the relay sees it. A
	// bind takes two round trips.
	lookTime = 5 * time.Second
	// knownTime is how long it is good enough what a relay has said.
	knownTime = 20 * time.Second
	// maxMappings bounds what is kept of where relays have seen the shared sockets, and
	// maxLooks how many legs are bound to find out.
	maxMappings = 32
	maxLooks    = 3
)

// Mapping is where a relay sees a shared UDP socket: the address that NATs have given it.
type Mapping struct {
	Relay netip.AddrPort // who says so, and where it was asked
	Addr  netip.AddrPort
	At    time.Time
}

// mirror keeps what relays have said of the shared sockets in this network. It is safe
// for concurrent use.
type mirror struct {
	mu   sync.Mutex // guards the following
	list []Mapping
	tell func() // nil: nobody wants to know
}

func (m *mirror) note(relay, addr netip.AddrPort, now time.Time) {
	m.mu.Lock()
	i := slices.IndexFunc(m.list, func(o Mapping) bool { return o.Relay == relay })
	changed := i < 0 || m.list[i].Addr != addr
	if i >= 0 {
		m.list = slices.Delete(m.list, i, i+1)
	}
	m.list = append(m.list, Mapping{relay, addr, now})
	if len(m.list) > maxMappings {
		m.list = slices.Delete(m.list, 0, 1)
	}
	tell := m.tell
	m.mu.Unlock()
	if changed && tell != nil {
		tell()
	}
}

func (m *mirror) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = nil
}

// wanted reports whether somebody wants to know.
func (m *mirror) wanted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tell != nil
}

// Mapped returns where relays have seen the shared UDP sockets since the network has
// changed last, oldest first. Each relay's port has told one at most.
func (f *Finder) Mapped() []Mapping {
	f.mirror.mu.Lock()
	defer f.mirror.mu.Unlock()
	return slices.Clone(f.mirror.list)
}

// Mirror has legs stay bound for a moment where TCP carries, so that relays say where
// they see the shared sockets, and tell called when one says something new. tell must
// not block; nil ends it.
func (f *Finder) Mirror(tell func()) {
	f.mirror.mu.Lock()
	defer f.mirror.mu.Unlock()
	f.mirror.tell = tell
}

// Look has a few relays say where they see the shared sockets now.
func (f *Finder) Look() {
	f.mu.Lock()
	var legs []*Leg
	for l := range f.legs {
		same := func(o *Leg) bool { return o.udp[0].Addr() == l.udp[0].Addr() }
		if len(l.udp) > 0 && !l.own && len(legs) < maxLooks && !slices.ContainsFunc(legs, same) {
			legs = append(legs, l)
		}
	}
	f.mu.Unlock()
	for _, l := range legs {
		l.look(true)
	}
}

// look has the relay say where it sees the leg; anew: also if it has said so.
func (l *Leg) look(anew bool) {
	b, err := l.bind(l.session.Leg == 0, nil)
	if err != nil {
		l.log.Debug("UDP leg not bound to learn its address", "error", err)
		return
	}
	if anew && !b.inUse() {
		b.refresh()
	}
	l.unbindLater(b)
}

// lookEarly begins to look with the session where nothing is known of this network: a
// tunnel that comes up over TCP is to know where it may be reached by then.
func (l *Leg) lookEarly() {
	m := &l.finder.mirror
	m.mu.Lock()
	known := slices.ContainsFunc(m.list, func(o Mapping) bool {
		return time.Since(o.At) < knownTime && o.Addr.Addr().Is4() == l.udp[0].Addr().Is4()
	})
	m.mu.Unlock()
	if !known {
		l.look(false)
	}
}

// Relays returns the addresses of the relays of all legs.
func (f *Finder) Relays() (list []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.legs {
		for _, a := range l.session.Relay.Addresses {
			list = append(list, a.Unmap())
		}
	}
	return list
}

// Sockets returns the UDP sockets of the portal.
func (f *Finder) Sockets() *packet.Sockets { return f.sockets }
