package topo

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/netport/netport/lab/capture"
	"github.com/netport/netport/lab/link"
)

// connect gives the node its place under its parent and its uplink, which is device in its namespace and is named
// after the node at the far end.
func (n *Node) connect(device string, c config) {
	n.t.Helper()
	n.device, n.at = device, n.parent.place(n, c)
	if c.mtu == 0 {
		c.mtu = 1500
	}
	if c.up != nil {
		n.makeEmulated(c)
	} else {
		n.makeVeth(n.device, n.name, c.mtu)
	}
	n.parent.attach(n.name, n.at)
	n.SetUp(true)
	if n.lab.capturing {
		n.startCapture(n.device)
	}
}

func (n *Node) makeVeth(device, far string, mtu int) { n.makeVethTo(n.parent, device, far, mtu) }

// makeVethTo joins the node with a router: device here, far there.
func (n *Node) makeVethTo(router *Router, device, far string, mtu int) {
	n.t.Helper()
	n.netlink(func(h *netlink.Handle) error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: device, MTU: mtu, TxQLen: -1})
		veth.PeerName, veth.PeerMTU, veth.PeerNamespace = far, uint32(mtu), netlink.NsFd(router.space.FD())
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth pair: %w", err)
		}
		return nil
	})
}

func (n *Node) makeEmulated(c config) {
	n.t.Helper()
	name := fnv.New64a()
	name.Write([]byte(n.name)) // each link its own dice, from one seed
	l, err := link.New(link.Config{
		Near: link.End{Space: n.space, Device: n.device},
		Far:  link.End{Space: n.parent.space, Device: n.name},
		MTU:  c.mtu,
		Seed: n.lab.seed ^ name.Sum64(),
		Up:   *c.up,
		Down: *c.down,
	})
	if err != nil {
		n.t.Fatalf("add %s: %v", n.name, err)
	}
	n.emulated = l
}

// Reshape changes the node's emulated uplink while it runs: up shapes what the node sends, down what it gets. It ends
// the test if the node was built without the option Uplink.
func (n *Node) Reshape(up, down link.Shape) {
	n.t.Helper()
	if n.emulated == nil {
		n.t.Fatalf("%s has no emulated link: build it with the option Uplink", n.name)
	}
	if err := n.emulated.Set(up, down); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// LinkCounters says what became of the frames on the node's emulated uplink so far: of those that the node sent and of
// those that were sent to it. They are zero for a veth pair.
func (n *Node) LinkCounters() (up, down link.Counters) {
	if n.emulated == nil {
		return link.Counters{}, link.Counters{}
	}
	return n.emulated.Counters()
}

// SetUp brings the uplink up or down at the node, as when a cable is plugged or pulled. It starts up.
func (n *Node) SetUp(up bool) {
	n.t.Helper()
	n.netlink(func(h *netlink.Handle) error {
		device, err := h.LinkByName(n.device)
		if err != nil {
			return err
		}
		if isUp := device.Attrs().Flags&net.FlagUp != 0; isUp == up {
			return nil
		}
		if !up {
			return h.LinkSetDown(device)
		}
		if err := h.LinkSetUp(device); err != nil {
			return fmt.Errorf("%s up: %w", n.device, err)
		}
		// The kernel dropped the routes, and the IPv6 address, when the link went down.
		if err := n.address(h, device, n.at.addr4, n.at.gateway4, n.at.bits4); err != nil {
			return err
		}
		return n.address(h, device, n.at.addr6, n.at.gateway6, 64)
	})
	if up {
		n.settle()
	}
}

// address sets an address and the default route of its IP version, unless the node does not have that version.
func (n *Node) address(h *netlink.Handle, device netlink.Link, addr, gateway netip.Addr, bits int) error {
	if !addr.IsValid() {
		return nil
	}
	if err := h.AddrReplace(device, linkAddr(addr, bits)); err != nil {
		return fmt.Errorf("address %v: %w", addr, err)
	}
	if err := h.RouteReplace(&netlink.Route{LinkIndex: device.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("default route by %v: %w", gateway, err)
	}
	return nil
}

func linkAddr(addr netip.Addr, bits int) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}}
}

func (n *Node) startCapture(device string) {
	n.t.Helper()
	f := n.artifact(device + ".pcap")
	var c *capture.Capture
	var err error
	n.Do(func() { c, err = capture.Start(device, f) })
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, errors.Join(err, f.Close()))
	}
	n.captures = append(n.captures, c)
}
