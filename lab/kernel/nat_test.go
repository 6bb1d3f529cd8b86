package kernel

import (
	"net/netip"
	"testing"

	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/topo"
)

var anyTerms daemon.Terms

// What two networks may be like: packet mode and UDP pass all of them, and to each NAT and firewall both are connections
// that its own side has opened.
func TestLegsPassNATsAndFirewalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		plan plan
	}{
		{"port restricted twice", plan{home: behind(topo.PortRestricted), office: behind(topo.PortRestricted)}},
		{"symmetric twice", plan{home: behind(topo.Symmetric), office: behind(topo.Symmetric)}},
		{"carrier-grade twice", plan{
			home:   carrierGrade(topo.Symmetric, topo.PortRestricted),
			office: carrierGrade(topo.PortRestricted, topo.Symmetric),
		}},
		{"no NAT", plan{home: behind(topo.DropUnsolicited), office: behind(topo.DropUnsolicited)}},
		{"filters that drop bare SYNs", plan{home: behind(topo.DropBareSYN), office: behind(topo.DropBareSYN)}},
		{"filters that want the ACK bit", plan{home: behind(topo.WantACK), office: behind(topo.WantACK)}},
		{"NATs that drop bare SYNs", plan{home: behind(topo.Symmetric, topo.DropBareSYN), office: behind(topo.PortRestricted, topo.WantACK)}},
		{"IPv6", plan{home: behind(topo.IPv6Only(), topo.DropUnsolicited), office: behind(topo.IPv6Only(), topo.WantACK), version: 6}},
		{"XDP, symmetric twice", plan{home: behind(topo.Symmetric), office: behind(topo.Symmetric), mode: "xdp"}},
		{"XDP, IPv6", plan{home: behind(topo.IPv6Only()), office: behind(topo.IPv6Only()), version: 6, mode: "xdp"}},
		{"generic XDP", plan{mode: "xdp-generic"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.plan)
			w.check()
		})
	}
}

// Legs of different IP versions are carried by user space, since no packet can be rewritten from one to the other. They get
// no packet ports.
func TestLegsOfDifferentVersionsAreCarriedByUserSpace(t *testing.T) {
	w := newWorld(t, plan{home: behind(topo.IPv4Only()), office: behind(topo.IPv6Only())})
	m := w.meet(daemon.Terms{Sources: [2]netip.Addr{w.sides[0].source(4), w.sides[1].source(6)}})
	if m.Ready.Packet != [2]uint16{} {
		t.Errorf("the session has the packet ports %v", m.Ready.Packet)
	}
	m.at[1] = w.relay.Host().Addr6()
	legs := m.bind()
	before := stackOf(w.relay.Host())
	checkDatagrams(t, legs, datagrams(200))
	if n := stackOf(w.relay.Host()).datagrams - before.datagrams; n < 400 {
		t.Errorf("%d datagrams reached the relay's sockets, want all", n)
	}
}

// A hundred sessions at once, of the same two sources, do not mix up what they carry.
func TestHundredSessionsAtOnce(t *testing.T) {
	const sessions = 100
	w := newWorld(t, plan{})
	before := stackOf(w.relay.Host())
	type carrying struct {
		*meeting
		legs [2]udpLeg
		done chan struct{}
	}
	all := make([]carrying, sessions)
	for i := range all {
		m := w.meet(anyTerms)
		all[i] = carrying{meeting: m, legs: m.bind(), done: make(chan struct{})}
	}
	bound := stackOf(w.relay.Host())
	for i, c := range all {
		ends := c.connect(i)
		d := datagrams(20)
		d.Interval, d.Key = 50e6, c.ID[:] // its own: a datagram of another is a forged one
		go func() {
			defer close(c.done)
			checkDatagrams(t, c.legs, d)
			checkStream(t, ends, 64<<10)
		}()
	}
	for _, c := range all {
		<-c.done
	}
	if n := stackOf(w.relay.Host()).datagrams - bound.datagrams; n > 100 {
		t.Errorf("%d datagrams reached the relay's sockets (%d while the legs were bound)", n, bound.datagrams-before.datagrams)
	}
	s := w.status()
	for i, c := range all {
		if line, ok := s.of(c.ID); !ok || line.Forth < 64<<10+20*200 || line.Back < 64<<10+20*200 {
			t.Errorf("session %d: the relay has counted %+v", i, line)
		}
	}
}

// The relay's legs are on two interfaces with addresses of their own: packets that come by one leave by the other.
func TestLegsOnTwoInterfaces(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"tc", "xdp"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, plan{mode: mode})
			host := w.lab.Public("relay-2")
			second := host.SecondUplink()
			if mode == "xdp" {
				second.CarryXDP()
			}
			w.relay = w.addRelay(host, mode)
			m := w.meet(anyTerms)
			m.at = [2]netip.Addr{host.Addr4(), second.Addr4}
			before := stackOf(host)
			legs, ends := m.bind(), m.connect(3)
			checkDatagrams(t, legs, datagrams(300))
			w.relay.Kill() // it is the kernel that forwards
			checkDatagrams(t, legs, datagrams(300))
			checkStream(t, ends, 1<<20)
			after := stackOf(host)
			if d, s := after.datagrams-before.datagrams, after.segments-before.segments; d > 60 || s > 60 {
				t.Errorf("%d datagrams and %d segments reached the relay's sockets", d, s)
			}
		})
	}
}
