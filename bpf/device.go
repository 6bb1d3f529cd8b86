//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device is a network interface as far as it matters for an attachment.
type device struct {
	index     int
	name      string
	ethernet  bool // its packets begin with an Ethernet header
	up        bool
	virtual   bool // no hardware below it, or that of a hypervisor
	mac       [6]byte
	addresses []netip.Addr
}

// paravirtual are the drivers of network cards that exist only in a virtual
// machine. They hand over large packets that were never cut on a wire, which
// XDP cannot have and tc can.
var paravirtual = []string{"virtio_net", "hv_netvsc", "vmxnet3", "vif"}

// network asks the system about interfaces and routes, in the network namespace
// of the thread that opened it.
type network struct {
	netlink *netlink.Handle
	ethtool int // any socket
}

func openNetwork() (*network, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	return &network{h, fd}, nil
}

func (n *network) close() {
	n.netlink.Close()
	unix.Close(n.ethtool)
}

// again repeats a dump that a change has interrupted.
func again[T any](dump func() (T, error)) (T, error) {
	for {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
}

// devices lists the interfaces of the machine.
func (n *network) devices() ([]device, error) {
	links, err := again(n.netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := again(func() ([]netlink.Addr, error) { return n.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []device
	for _, l := range links {
		a := l.Attrs()
		d := device{
			index:    a.Index,
			name:     a.Name,
			ethernet: a.EncapType == "ether",
			up:       a.RawFlags&unix.IFF_UP != 0,
			virtual:  l.Type() != "device" || n.isVirtual(a.Name),
		}
		copy(d.mac[:], a.HardwareAddr)
		for _, address := range addresses {
			if ip, ok := netip.AddrFromSlice(address.IP); ok && address.LinkIndex == d.index {
				d.addresses = append(d.addresses, ip.Unmap())
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// isVirtual judges a device without a kind of its own by its driver.
func (n *network) isVirtual(name string) bool {
	info, err := unix.IoctlGetEthtoolDrvinfo(n.ethtool, name)
	if err != nil {
		return true
	}
	return info.Bus_info[0] == 0 || slices.Contains(paravirtual, unix.ByteSliceToString(info.Driver[:]))
}

// hop looks up the way of packets between two addresses. The zero hop stands
// for no way, which is for the kernel to say again when a packet comes.
func (n *network) hop(from, to netip.Addr) hop {
	routes, err := n.netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice()})
	if err != nil || len(routes) != 1 {
		return hop{}
	}
	gateway := to // without one the host itself
	if ip, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		gateway = ip.Unmap()
	} else if via, ok := routes[0].Via.(*netlink.Via); ok {
		if ip, ok := netip.AddrFromSlice(via.Addr); ok {
			gateway = ip.Unmap()
		}
	}
	return hop{routes[0].LinkIndex, gateway}
}

// hops returns a function that looks up the ways to legs, each once.
func (n *network) hops() func(Leg) hop {
	known := make(map[[2]netip.Addr]hop)
	return func(l Leg) hop {
		key := [2]netip.Addr{l.Local, l.Remote.Addr()}
		h, ok := known[key]
		if !ok {
			h = n.hop(key[0], key[1])
			known[key] = h
		}
		return h
	}
}
