package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/netport/netport/lab/topo"
)

// cable is a veth pair to measure a relay on, alone: the relay, or what stands in for it, is at the far end. Packets come
// from the near end, and the relay sends them back there.
type cable struct {
	near cableEnd // a device of the internet
	far  cableEnd
	host *topo.Host // at the far end
}

// cableEnd is one end of a cable.
type cableEnd struct {
	*topo.Node
	device *net.Interface
	addr   netip.Addr // IPv4
}

// newCable makes a cable whose far end's host has the name.
func (w *world) newCable(name string) (*cable, error) {
	host := w.lab.Public(name)
	near, err := endOf(w.lab.Internet().Node, name)
	if err != nil {
		return nil, err
	}
	far, err := endOf(host.Node, host.Device())
	return &cable{near: near, far: far, host: host}, err
}

// endOf looks at a node's device.
func endOf(node *topo.Node, name string) (cableEnd, error) {
	e := cableEnd{Node: node}
	var addrs []net.Addr
	var err error
	node.Do(func() {
		if e.device, err = net.InterfaceByName(name); err == nil {
			addrs, err = e.device.Addrs()
		}
	})
	if err != nil {
		return cableEnd{}, fmt.Errorf("look at device %s of %s: %w", name, node.Name(), err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() {
			e.addr = prefix.Addr()
			return e, nil
		}
	}
	return cableEnd{}, fmt.Errorf("device %s of %s has no IPv4 address", name, node.Name())
}
