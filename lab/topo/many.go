package topo

import (
	"context"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Also gives the host all addresses of an IPv4 prefix, besides its own: it takes packets to any of them, and DialFrom
// sends from them. The internet routes the prefix to it, so the host must hang on that.
func (h *Host) Also(prefix netip.Prefix) {
	h.t.Helper()
	network := &net.IPNet{IP: prefix.Masked().Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	h.parent.netlink(func(handle *netlink.Handle) error {
		return handle.RouteAdd(&netlink.Route{Dst: network, Gw: h.at.addr4.AsSlice()})
	})
	h.netlink(func(handle *netlink.Handle) error {
		lo, err := handle.LinkByName("lo")
		if err != nil {
			return err
		}
		const localTable, local = 255, 2 // RT_TABLE_LOCAL, RTN_LOCAL
		return handle.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: network, Table: localTable, Type: local, Scope: netlink.SCOPE_HOST})
	})
}

// DialFrom is DialContext from one of the node's addresses.
func (n *Node) DialFrom(ctx context.Context, from netip.Addr, to netip.AddrPort) (conn net.Conn, err error) {
	dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	n.Do(func() { conn, err = dialer.DialContext(ctx, "tcp", to.String()) })
	return conn, err
}
