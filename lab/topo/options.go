package topo

import (
	"net/netip"

	"github.com/netport/netport/lab/link"
)

// HostOption changes one host.
type HostOption interface{ applyHost(*config) }

// RouterOption changes one router.
type RouterOption interface{ applyRouter(*config) }

// config is what options say about a node before it is built.
type config struct {
	nat     *NAT
	rules   []Rule
	lan     netip.Prefix // a router's IPv4 LAN; chosen if zero
	addr4   netip.Addr   // on the LAN the node hangs on; the next free one if zero
	up      *link.Shape  // of an emulated link; nil for a veth pair
	down    *link.Shape
	mtu     int
	without families
}

// nodeOption is an option of hosts and routers.
type nodeOption func(*config)

func (o nodeOption) applyHost(c *config)   { o(c) }
func (o nodeOption) applyRouter(c *config) { o(c) }

// routerOption is an option of routers only.
type routerOption func(*config)

func (o routerOption) applyRouter(c *config) { o(c) }

// Option of hosts and routers.
type NodeOption interface {
	HostOption
	RouterOption
}

// Uplink makes the node's uplink an emulated link with the same shape both ways. Node.Reshape changes it later.
func Uplink(both link.Shape) NodeOption { return UplinkShapes(both, both) }

// UplinkShapes makes the node's uplink an emulated link: up shapes what the node sends, down what it gets.
func UplinkShapes(up, down link.Shape) NodeOption {
	return nodeOption(func(c *config) { c.up, c.down = &up, &down })
}

// MTU sets the largest packet of the node's uplink, at both ends, in bytes; 1500 without it.
func MTU(bytes int) NodeOption { return nodeOption(func(c *config) { c.mtu = bytes }) }

// At gives the node this IPv4 address on the LAN of the router it hangs on.
func At(addr string) NodeOption {
	return nodeOption(func(c *config) { c.addr4 = netip.MustParseAddr(addr) })
}

// IPv4Only leaves IPv6 out of the node and of all that hangs on it.
func IPv4Only() NodeOption { return nodeOption(func(c *config) { c.without.v6 = true }) }

// IPv6Only leaves IPv4 out of the node and of all that hangs on it.
func IPv6Only() NodeOption { return nodeOption(func(c *config) { c.without.v4 = true }) }

// LAN sets a router's IPv4 network, for instance "10.0.0.0/24". Without it each router has a network of its own:
// private behind a NAT, else public.
func LAN(prefix string) RouterOption {
	return routerOption(func(c *config) { c.lan = netip.MustParsePrefix(prefix) })
}
