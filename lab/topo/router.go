package topo

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Router joins a LAN to its uplink. The internet is a router, too, without an uplink and with a network for each node.
type Router struct {
	*Node
	nat        *NAT
	lan4, lan6 netip.Prefix // zero for the internet
	members    int          // nodes on the LAN so far
}

// Router adds a router whose uplink is this router's LAN.
func (r *Router) Router(name string, options ...RouterOption) *Router {
	r.t.Helper()
	var c config
	for _, option := range options {
		option.applyRouter(&c)
	}
	child := &Router{Node: r.lab.newNode(name, r, r.families.without(c.without)), nat: c.nat}
	child.firewall = firewall{inHook: "forward", outHook: "forward", guardSelf: c.nat != nil}
	number := r.lab.network()
	child.lan4, child.lan6 = c.lan.Masked(), globalPrefix(number)
	if !child.lan4.IsValid() && c.nat != nil {
		child.lan4 = privatePrefix(number)
	} else if !child.lan4.IsValid() {
		child.lan4 = publicPrefix(number)
	}
	if !child.lan4.Addr().Is4() || child.lan4.Bits() > 24 {
		r.t.Fatalf("add router %s: LAN %v: want an IPv4 network of 24 bits or fewer", name, child.lan4)
	}
	child.forwardPackets()
	child.makeLAN()
	child.connect("wan", c)
	if c.nat != nil {
		child.startNAT()
	}
	child.SetRules(c.rules...)
	child.announce()
	return child
}

// Host adds a host to the router's LAN.
func (r *Router) Host(name string, options ...HostOption) *Host {
	r.t.Helper()
	var c config
	for _, option := range options {
		option.applyHost(&c)
	}
	h := &Host{Node: r.lab.newNode(name, r, r.families.without(c.without))}
	h.firewall = firewall{inHook: "input", outHook: "output"}
	h.connect("eth0", c)
	if len(c.rules) > 0 {
		h.SetRules(c.rules...)
	}
	return h
}

// forwardPackets makes the namespace a router: any source, no redirects.
func (r *Router) forwardPackets() {
	r.t.Helper()
	for _, set := range [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv4/conf/all/rp_filter", "0"}, // hosts of the internet may forge their source
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
	} {
		r.Sysctl(set[0], set[1])
	}
}

// makeLAN makes the bridge that the LAN's members share.
func (r *Router) makeLAN() {
	r.t.Helper()
	snooping := false // it would hold back neighbour discovery until it has learnt
	r.netlink(func(h *netlink.Handle) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan", TxQLen: -1}, MulticastSnooping: &snooping}
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		if err := h.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("bridge up: %w", err)
		}
		return r.addressGateway(h, bridge, hostAddr(r.lan4, 1), hostAddr(r.lan6, 1), r.lan4.Bits())
	})
}

// place says where a node hangs: its addresses and the ways out, each zero if it does not have that IP version.
type place struct {
	addr4, gateway4 netip.Addr
	addr6, gateway6 netip.Addr
	bits4           int
}

// place chooses the addresses of a new node: in a network of its own under the internet, else on the LAN.
func (r *Router) place(n *Node, c config) place {
	r.t.Helper()
	net4, net6, index := r.lan4, r.lan6, 2
	if r.parent == nil {
		number := r.lab.network()
		net4, net6 = publicPrefix(number), globalPrefix(number)
	} else {
		r.members++
		index = 1 + r.members
	}
	p := place{
		addr4: hostAddr(net4, index), gateway4: hostAddr(net4, 1), bits4: net4.Bits(),
		addr6: hostAddr(net6, index), gateway6: hostAddr(net6, 1),
	}
	if c.addr4.IsValid() {
		p.addr4 = c.addr4
	}
	if index > 250 || !net4.Contains(p.addr4) {
		r.t.Fatalf("add %s to %s: no address %v on %v", n.name, r.name, p.addr4, net4)
	}
	if !n.families.v4 {
		p.addr4, p.gateway4 = netip.Addr{}, netip.Addr{}
	}
	if !n.families.v6 {
		p.addr6, p.gateway6 = netip.Addr{}, netip.Addr{}
	}
	return p
}

// attach takes the far end of a new uplink: into the bridge, or with the gateway's addresses.
func (r *Router) attach(device string, at place) {
	r.t.Helper()
	r.netlink(func(h *netlink.Handle) error {
		port, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		if r.parent != nil {
			bridge, err := h.LinkByName("lan")
			if err != nil {
				return err
			}
			if err := h.LinkSetMaster(port, bridge); err != nil {
				return fmt.Errorf("%s into the bridge: %w", device, err)
			}
		}
		if err := h.LinkSetUp(port); err != nil {
			return fmt.Errorf("%s up: %w", device, err)
		}
		if r.parent == nil {
			return r.addressGateway(h, port, at.gateway4, at.gateway6, at.bits4)
		}
		return nil
	})
}

func (r *Router) addressGateway(h *netlink.Handle, device netlink.Link, addr4, addr6 netip.Addr, bits4 int) error {
	if r.families.v4 && addr4.IsValid() {
		if err := h.AddrAdd(device, linkAddr(addr4, bits4)); err != nil {
			return fmt.Errorf("address %v: %w", addr4, err)
		}
	}
	if r.families.v6 && addr6.IsValid() {
		if err := h.AddrAdd(device, linkAddr(addr6, 64)); err != nil {
			return fmt.Errorf("address %v: %w", addr6, err)
		}
	}
	return nil
}

// announce tells every router on the way to the internet how to reach the LAN: by IPv6, and by IPv4 as far as no NAT
// hides it.
func (r *Router) announce() {
	r.t.Helper()
	hidden := r.nat != nil
	for hop := r; hop.parent != nil; hop = hop.parent {
		hop.parent.netlink(func(h *netlink.Handle) error {
			if r.families.v6 {
				if err := addRoute(h, r.lan6, hop.at.addr6); err != nil {
					return err
				}
			}
			if r.families.v4 && !hidden {
				return addRoute(h, r.lan4, hop.at.addr4)
			}
			return nil
		})
		hidden = hidden || hop.parent.nat != nil
	}
}

func addRoute(h *netlink.Handle, to netip.Prefix, gateway netip.Addr) error {
	dst := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	if err := h.RouteAdd(&netlink.Route{Dst: dst, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route to %v by %v: %w", to, gateway, err)
	}
	return nil
}
