package topo

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Second is a host's further way out.
type Second struct {
	Device       string // at the host
	Addr4, Addr6 netip.Addr

	host *Host
	far  string // the device at the router
}

// secondDevice is the further uplink's, and secondTable its routing table.
const (
	secondDevice = "eth1"
	secondTable  = 100
)

// SecondUplink gives the host a further uplink to the router it hangs on, with addresses of its own. What the host sends
// from those leaves by it, as on a machine that two providers serve; everything else takes the first. Of the options only
// MTU counts.
func (h *Host) SecondUplink(options ...HostOption) Second {
	h.t.Helper()
	c := config{mtu: 1500}
	for _, option := range options {
		option.applyHost(&c)
	}
	at, far := h.parent.place(h.Node, config{}), h.name+"-2"
	h.makeVeth(secondDevice, far, c.mtu)
	h.parent.attach(far, at)
	h.netlink(func(handle *netlink.Handle) error {
		device, err := handle.LinkByName(secondDevice)
		if err != nil {
			return err
		}
		if err := handle.LinkSetUp(device); err != nil {
			return fmt.Errorf("%s up: %w", secondDevice, err)
		}
		for _, way := range []struct {
			addr, gateway netip.Addr
			bits          int
		}{{at.addr4, at.gateway4, at.bits4}, {at.addr6, at.gateway6, 64}} {
			if !way.addr.IsValid() {
				continue
			}
			if err := addSecond(handle, device, way.addr, way.gateway, way.bits); err != nil {
				return err
			}
		}
		return nil
	})
	h.parent.activate(far)
	h.activate(secondDevice)
	if h.families.v6 {
		h.parent.waitLocal(at.gateway6)
		h.waitLocal(at.addr6)
	}
	if h.lab.capturing {
		h.startCapture(secondDevice)
	}
	h.second = Second{Device: secondDevice, Addr4: at.addr4, Addr6: at.addr6, host: h, far: far}
	return h.second
}

// addSecond sets an address, and the way that packets from it take.
func addSecond(handle *netlink.Handle, device netlink.Link, addr, gateway netip.Addr, bits int) error {
	if err := handle.AddrAdd(device, linkAddr(addr, bits)); err != nil {
		return fmt.Errorf("address %v: %w", addr, err)
	}
	route := &netlink.Route{LinkIndex: device.Attrs().Index, Gw: gateway.AsSlice(), Table: secondTable}
	if err := handle.RouteAdd(route); err != nil {
		return fmt.Errorf("default route by %v: %w", gateway, err)
	}
	rule := netlink.NewRule()
	rule.Src = &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
	rule.Table = secondTable
	if err := handle.RuleAdd(rule); err != nil {
		return fmt.Errorf("rule for what is sent from %v: %w", addr, err)
	}
	return nil
}
