package topo

import (
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// settleTimeout is far more than the kernel takes.
const settleTimeout = 10 * time.Second

// settle waits until the uplink that has just come up carries packets, at both its ends and in both IP versions. The
// kernel does some of that later than it answers, and drops what comes meanwhile; a lost ARP request is repeated a
// second later.
func (n *Node) settle() {
	n.t.Helper()
	n.parent.activate(n.name)
	n.activate(n.device)
	if n.parent != n.lab.inet {
		n.parent.activate("lan")
	}
	if n.families.v6 {
		n.parent.waitLocal(n.at.gateway6)
		n.waitLocal(n.at.addr6)
	}
}

// activate makes the kernel finish with a device that has just got its carrier: a question for one device by its name
// is answered only after that (rtnl_getlink in net/core/rtnetlink.c). Else it may take a second.
func (n *Node) activate(device string) {
	n.t.Helper()
	n.netlink(func(h *netlink.Handle) error {
		_, err := h.LinkByName(device)
		return err
	})
}

// waitLocal waits until the node takes packets for an IPv6 address of its own, which a worker of the kernel sees to.
func (n *Node) waitLocal(addr netip.Addr) {
	n.t.Helper()
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	space := netns.NsHandle(n.space.FD())
	if err := netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{Namespace: &space}); err != nil {
		n.t.Fatalf("%s: watch routes: %v", n.name, err)
	}
	defer func() {
		close(done)
		for range updates { // until its goroutine has ended
		}
	}()
	timeout := time.After(settleTimeout)
	for !n.isLocal(addr) {
		select {
		case <-updates:
		case <-timeout:
			n.t.Fatalf("%s: does not take packets for its address %v after %v", n.name, addr, settleTimeout)
		}
	}
}

func (n *Node) isLocal(addr netip.Addr) (local bool) {
	n.t.Helper()
	n.netlink(func(h *netlink.Handle) error {
		routes, err := h.RouteGet(addr.AsSlice())
		local = len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
		if err == unix.ENETUNREACH {
			return nil // not yet
		}
		return err
	})
	return local
}
