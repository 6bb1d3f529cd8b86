//go:build linux

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filterName begins the name of every filter of a relay. The directory of its
// pins follows, so that two relays on one machine know theirs.
const filterName = "netport-relay "

// setFilter makes a program the filter of an interface's incoming packets, in
// the place of the one that the same owner has set before. It is how tc works
// on kernels before 6.6. Without a priority the kernel puts a new filter before
// all that are there.
func (n *network) setFilter(ifindex int, owner string, program *ebpf.Program) error {
	old, err := n.filter(ifindex, owner)
	if err != nil {
		return err
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    netlink.HANDLE_MIN_INGRESS,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           program.FD(),
		Name:         filterName + owner,
		DirectAction: true,
	}
	if old != nil {
		filter.Handle, filter.Priority = old.Handle, old.Priority
		if err := n.netlink.FilterReplace(filter); err != nil {
			return fmt.Errorf("replace the tc filter: %w", err)
		}
		return nil
	}
	err = n.netlink.QdiscAdd(clsact(ifindex))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add a clsact qdisc: %w", err)
	}
	if err := n.netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("add a tc filter: %w", err)
	}
	return nil
}

// filter returns the filter that an owner has set, or nil.
func (n *network) filter(ifindex int, owner string) (*netlink.BpfFilter, error) {
	list, err := n.filters(ifindex, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		if f, ok := f.(*netlink.BpfFilter); ok && f.Name == filterName+owner {
			return f, nil
		}
	}
	return nil, nil
}

func (n *network) filters(ifindex int, parent uint32) ([]netlink.Filter, error) {
	list, err := again(func() ([]netlink.Filter, error) { return n.netlink.FilterList(onlyIndex(ifindex), parent) })
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil, nil // the interface has no qdisc for filters
		}
		return nil, fmt.Errorf("list tc filters: %w", err)
	}
	return list, nil
}

// removeFilter takes away what setFilter has made. The qdisc goes with the last
// filter on it.
func (n *network) removeFilter(ifindex int, owner string) error {
	f, err := n.filter(ifindex, owner)
	if f == nil || err != nil {
		return err
	}
	if err := n.netlink.FilterDel(f); err != nil {
		return fmt.Errorf("remove a tc filter: %w", err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if list, err := n.filters(ifindex, parent); len(list) > 0 || err != nil {
			return err
		}
	}
	if err := n.netlink.QdiscDel(clsact(ifindex)); err != nil {
		return fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return nil
}

func clsact(ifindex int) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// onlyIndex is a link for calls that want no more of it than its index.
func onlyIndex(ifindex int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}
