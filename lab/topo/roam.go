package topo

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// standbyDevice is the uplink's that a host has in reserve.
const standbyDevice = "eth2"

// Metrics of default routes: a first uplink's has none, which is the best in IPv4 and means 1024 in IPv6.
const (
	standbyMetric = 2000
	unlovedMetric = 20000
)

// Standby gives the host an uplink to another router, device "eth2", as a phone has its mobile network beside a Wi-Fi: it
// is up, and takes over while the first uplink is down or is no longer preferred. It has the IP versions of its router,
// whatever the first has.
func (h *Host) Standby(by *Router) {
	h.t.Helper()
	at, far := by.place(&Node{t: h.t, name: h.name, families: by.families}, config{}), h.name+"-2"
	h.makeVethTo(by, standbyDevice, far, 1500)
	by.attach(far, at)
	h.netlink(func(handle *netlink.Handle) error {
		device, err := handle.LinkByName(standbyDevice)
		if err != nil {
			return err
		}
		if err := handle.LinkSetUp(device); err != nil {
			return fmt.Errorf("%s up: %w", standbyDevice, err)
		}
		for _, way := range []struct {
			addr, gateway netip.Addr
			bits          int
		}{{at.addr4, at.gateway4, at.bits4}, {at.addr6, at.gateway6, 64}} {
			if !way.addr.IsValid() {
				continue
			}
			if err := handle.AddrAdd(device, linkAddr(way.addr, way.bits)); err != nil {
				return fmt.Errorf("address %v: %w", way.addr, err)
			}
			if err := handle.RouteAdd(defaultRoute(device, way.gateway, standbyMetric)); err != nil {
				return fmt.Errorf("default route by %v: %w", way.gateway, err)
			}
		}
		return nil
	})
	by.activate(far)
	by.activate("lan")
	h.activate(standbyDevice)
	if at.addr6.IsValid() {
		h.waitLocal(at.addr6)
	}
	if h.lab.capturing {
		h.startCapture(standbyDevice)
	}
}

// Leave takes the first uplink down together with its addresses, as a device does that leaves a Wi-Fi's reach. SetUp
// brings them back.
func (h *Host) Leave() {
	h.t.Helper()
	h.SetUp(false) // the kernel drops the IPv6 address
	if !h.at.addr4.IsValid() {
		return
	}
	h.netlink(func(handle *netlink.Handle) error {
		device, err := handle.LinkByName(h.device)
		if err != nil {
			return err
		}
		return handle.AddrDel(device, linkAddr(h.at.addr4, h.at.bits4))
	})
}

// Prefer makes the host send by its first uplink, as it does at first, or by its standby although the first is up: what a
// machine does that has found a Wi-Fi to lead nowhere. Sockets that are bound to the first's address stay so.
// IPv4 only.
func (h *Host) Prefer(standby bool) {
	h.t.Helper()
	from, to := unlovedMetric, 0
	if standby {
		from, to = to, from
	}
	h.netlink(func(handle *netlink.Handle) error {
		device, err := handle.LinkByName(h.device)
		if err != nil {
			return err
		}
		if err := handle.RouteAdd(defaultRoute(device, h.at.gateway4, to)); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
		return handle.RouteDel(defaultRoute(device, h.at.gateway4, from))
	})
}

// defaultRoute is the way out by a gateway. Of several the one with the lowest metric counts.
func defaultRoute(device netlink.Link, gateway netip.Addr, metric int) *netlink.Route {
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if gateway.Is6() {
		everywhere = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{LinkIndex: device.Attrs().Index, Dst: everywhere, Gw: gateway.AsSlice(), Priority: metric}
}

// Renumber gives a router with a NAT another public IPv4 address, as a provider does when the router dials in anew: the
// old address is gone, and so is all that the NAT remembers.
func (r *Router) Renumber() {
	r.t.Helper()
	if r.parent != r.lab.inet {
		r.t.Fatalf("%s has no public address", r.name)
	}
	if r.nat != nil && r.nat.Hairpin {
		r.t.Fatalf("%s hairpins by the address that it has", r.name)
	}
	old := r.at.addr4
	r.at.addr4 = old.Next()
	r.netlink(func(h *netlink.Handle) error {
		device, err := h.LinkByName(r.device)
		if err != nil {
			return err
		}
		if err := h.AddrDel(device, linkAddr(old, r.at.bits4)); err != nil {
			return fmt.Errorf("address %v: %w", old, err)
		}
		return r.address(h, device, r.at.addr4, r.at.gateway4, r.at.bits4)
	})
	r.ForgetMappings()
}

// SetMTU changes the largest packet that the node's uplink carries, at both its ends, in bytes.
func (n *Node) SetMTU(bytes int) {
	n.t.Helper()
	for _, end := range []struct {
		node   *Node
		device string
	}{{n, n.device}, {n.parent.Node, n.name}} {
		end.node.netlink(func(h *netlink.Handle) error {
			device, err := h.LinkByName(end.device)
			if err != nil {
				return err
			}
			return h.LinkSetMTU(device, bytes)
		})
	}
}
