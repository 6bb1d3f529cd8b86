//go:build linux

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// apart is a pair whose legs are behind different interfaces of the relay: what
// comes from host 0 by interface a leaves for host 1 by interface b.
func (r *rig) apart(protocol Protocol, v6 bool) *peers {
	r.Helper()
	p := r.join(protocol, v6)
	r.clearFlows()
	for i := range 2 {
		p.remote[i] = netip.AddrPortFrom(hostAddr(i, v6), p.remote[i].Port())
		p.local[i] = netip.AddrPortFrom(relayAddr(i, v6), p.local[i].Port())
	}
	p.install(func(_ int, flow *relayFlow) { flow.Flags, flow.Ifindex = 0, 0 })
	return p
}

var hostMAC = mac{0x02, 0, 0, 0, 1, 2}

// knows tells the kernel the MAC address of host 1.
func (r *rig) knows(v6 bool) {
	r.Helper()
	r.neighbour(v6, netlink.NeighSet)
}

// forgets makes the kernel forget it.
func (r *rig) forgets(v6 bool) {
	r.Helper()
	r.neighbour(v6, netlink.NeighDel)
}

func (r *rig) neighbour(v6 bool, change func(*netlink.Neigh) error) {
	r.Helper()
	err := change(&netlink.Neigh{
		LinkIndex: r.devices[1].Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: hostAddr(1, v6).AsSlice(), HardwareAddr: hostMAC[:],
	})
	if err != nil {
		r.Fatal(err)
	}
}

// onward is a segment as host 1 gets it.
func (p *peers) onward(arrived segment) segment {
	s := p.leaving(arrived)
	s.toMAC, s.fromMAC = hostMAC, p.mac(1)
	return s
}

// routes runs f for both protocols and IP versions, with a neighbour that is known.
func routes(r *rig, f func(p *peers, v6 bool)) {
	for _, protocol := range []Protocol{UDP, TCP} {
		for _, v6 := range []bool{false, true} {
			p := r.apart(protocol, v6)
			r.knows(v6)
			f(p, v6)
			r.clearFlows()
		}
	}
}

func TestFindsTheWayWhereLegsDiffer(t *testing.T) {
	both(t, func(r *rig, h hook) {
		routes(r, func(p *peers, v6 bool) {
			s := p.arriving(0, pattern(100))
			r.wants(h, s.to.String(), s.frame(), sent, p.onward(s).frame(), nil)
			padded := append(s.frame(), make([]byte, 9)...)
			r.wants(h, s.to.String()+", padded", padded, sent, p.onward(s).frame(), nil)
			if d := p.slotOf().From[0]; d.Packets != 2 || d.Bytes != 200 {
				t.Errorf("counted %+v", d)
			}
			// Back is only for what came from there.
			p.install(func(_ int, flow *relayFlow) { flow.Ifindex = uint32(r.devices[1].Attrs().Index) })
			r.wants(h, s.to.String()+", back elsewhere", s.frame(), sent, p.onward(s).frame(), nil)
		})
	})
}

// TestUnknownNeighbour: tc lets the kernel ask for the MAC address, XDP the daemon.
func TestUnknownNeighbour(t *testing.T) {
	both(t, func(r *rig, h hook) {
		routes(r, func(p *peers, v6 bool) {
			r.forgets(v6)
			s := p.arriving(0, pattern(100))
			if h.name == "tc" {
				after := p.leaving(s)
				after.toMAC, after.fromMAC = s.toMAC, s.fromMAC // the kernel writes them when it sends
				r.wants(h, s.to.String(), s.frame(), sent, after.frame(), nil)
			} else {
				r.wants(h, s.to.String(), s.frame(), dropped, nil, nil,
					r.event(relayEventKindEVENT_FORWARD, relayEventReasonREASON_NEIGHBOUR, 0, s.frame()))
			}
			if d := p.slotOf().From[0]; d.Packets != 1 || d.Bytes != 100 {
				t.Errorf("counted %+v", d)
			}
		})
	})
}

// TestTooBigForTheWayOut goes to the daemon, which answers.
func TestTooBigForTheWayOut(t *testing.T) {
	const mtu = 1300
	both(t, func(r *rig, h hook) {
		if err := netlink.LinkSetMTU(r.devices[1], mtu); err != nil {
			t.Fatal(err)
		}
		routes(r, func(p *peers, v6 bool) {
			header := 20 + 8
			if p.protocol == TCP {
				header += 12
			}
			if v6 {
				header += 20
			}
			fits := p.arriving(0, pattern(mtu-header))
			r.wants(h, fits.to.String()+", fits", fits.frame(), sent, p.onward(fits).frame(), nil)
			before := p.slotOf()
			large := p.arriving(0, pattern(mtu-header+1))
			r.wants(h, fits.to.String()+", too big", large.frame(), dropped, nil, nil,
				r.event(relayEventKindEVENT_TOO_BIG, relayEventReasonREASON_MTU, mtu, large.frame()))
			if p.slotOf() != before {
				t.Error("what was not sent has been counted")
			}
			if h.name == "xdp" {
				return
			}
			// Of a GSO packet the segments count, not the whole.
			whole := p.arriving(0, pattern(3000))
			for size, want := range map[int]outcome{mtu - header: sent, mtu - header + 1: dropped} {
				got, err := r.try(h, whole.frame(), skbContext{Ifindex: uint32(r.devices[0].Attrs().Index), GSOSize: uint32(size), GSOSegs: 3})
				if err != nil {
					t.Fatal(err)
				}
				if got.outcome != want {
					t.Errorf("%v, segments with %d bytes: %s, want %s", p.protocol, size, got.outcome, want)
				}
			}
			if events := r.drain(); len(events) != 1 || events[0].kind != relayEventKindEVENT_TOO_BIG || len(events[0].packet) != 3000+header {
				t.Errorf("events %v", events)
			}
		})
	})
}

// TestNoRoute drops and counts.
func TestNoRoute(t *testing.T) {
	both(t, func(r *rig, h hook) {
		routes(r, func(p *peers, v6 bool) {
			bits := hostAddr(1, v6).BitLen()
			route := &netlink.Route{
				Dst:  &net.IPNet{IP: hostAddr(1, v6).AsSlice(), Mask: net.CIDRMask(bits, bits)},
				Type: 7, // RTN_UNREACHABLE
			}
			if err := netlink.RouteAdd(route); err != nil {
				t.Fatal(err)
			}
			defer netlink.RouteDel(route)
			s := p.arriving(0, pattern(100))
			r.wants(h, s.to.String(), s.frame(), dropped, nil, counts{relayDropReasonDROP_ROUTE: 1})
		})
	})
}

// TestHostThatDoesNotForward has no routes for the program. The daemon may have told
// tc which interface leads to the leg; else it sends itself.
func TestHostThatDoesNotForward(t *testing.T) {
	both(t, func(r *rig, h hook) {
		r.sysctl("net/ipv4/ip_forward", "0")
		r.sysctl("net/ipv6/conf/all/forwarding", "0")
		routes(r, func(p *peers, v6 bool) {
			s := p.arriving(0, pattern(100))
			asked := r.event(relayEventKindEVENT_FORWARD, relayEventReasonREASON_FORWARDING, 0, s.frame())
			r.wants(h, s.to.String(), s.frame(), dropped, nil, nil, asked)

			p.install(func(_ int, flow *relayFlow) { flow.Flags, flow.Ifindex = 0, uint32(r.devices[1].Attrs().Index) })
			if h.name == "xdp" {
				r.wants(h, s.to.String()+", interface known", s.frame(), dropped, nil, nil, asked)
				return
			}
			after := p.leaving(s)
			after.toMAC, after.fromMAC = s.toMAC, s.fromMAC // the kernel writes them when it sends
			r.wants(h, s.to.String()+", interface known", s.frame(), sent, after.frame(), nil)
			if err := netlink.LinkSetMTU(r.devices[1], 1280); err != nil {
				t.Fatal(err)
			}
			large := p.arriving(0, pattern(1300))
			r.wants(h, s.to.String()+", too big", large.frame(), dropped, nil, nil,
				r.event(relayEventKindEVENT_TOO_BIG, relayEventReasonREASON_MTU, 1280, large.frame()))
			if err := netlink.LinkSetMTU(r.devices[1], 1500); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// TestTCSendsToNewNeighbours, real ones, on a host that forwards and one that does not.
func TestTCSendsToNewNeighbours(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, forwarding := range []string{"1", "0"} {
			t.Run(fmt.Sprintf("v6=%v forwarding=%s", v6, forwarding), func(t *testing.T) {
				w := newWorld(t)
				w.sysctl("net/ipv4/ip_forward", forwarding)
				w.sysctl("net/ipv6/conf/all/forwarding", forwarding)
				k := w.open(w.options(ModeTC, ""))
				p := pairOf(UDP, v6, 0)
				if err := k.Add(p, Terms{Lifetime: time.Hour}); err != nil {
					t.Fatal(err)
				}
				ends := w.ends(p)
				known, err := netlink.NeighList(0, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range known {
					if n.IP.Equal(hostAddr(1, v6).AsSlice()) && n.HardwareAddr != nil {
						t.Fatalf("the relay knows host 1 already: %v", n)
					}
				}
				if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
					t.Errorf("%d of 100 datagrams were lost; drops %v", lost, k.Drops())
				}
			})
		}
	}
}
