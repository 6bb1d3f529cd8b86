//go:build linux

package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// followInterfaces attaches to interfaces as they come and change, until ctx is
// done.
func (k *Kernel) followInterfaces(ctx context.Context) error {
	for {
		if err := k.follow(); err != nil {
			k.log.Error("interfaces not followed", "error", err)
		}
		if err := k.interfaces.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the interfaces: %w", err)
		}
	}
}

// attachFirst attaches a new Kernel. It is an error if nothing can be attached,
// or if the kernel has refused a form of the program that now stands somewhere:
// then everything is left as it is.
func (k *Kernel) attachFirst() error {
	links, err := k.pins.links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := k.programs[hookOf(l.mode)].err; err != nil {
			return fmt.Errorf("%w; the program that is attached stays", err)
		}
	}
	devices, err := k.network.devices()
	if err != nil {
		return err
	}
	if err := k.programs[hookTC].err; err != nil {
		for _, d := range devices {
			if f, _ := k.network.filter(d.index, k.pins.dir); f != nil {
				return fmt.Errorf("%w; the program that is attached stays", err)
			}
		}
	}
	for _, l := range links {
		if !slices.ContainsFunc(devices, func(d device) bool { return d.index == l.ifindex }) {
			if err := l.remove(); err != nil {
				return err
			}
		}
	}
	if err := k.follow(); err != nil {
		return err
	}
	var whys []string
	for _, i := range k.Interfaces() {
		if i.Mode != ModeUserspace {
			return nil
		}
		whys = append(whys, fmt.Sprintf("%s (%s)", i.Name, i.Why))
	}
	if whys == nil {
		return errors.New("no interface to attach to: none is up and has an address of the relay; name them in the configuration")
	}
	return fmt.Errorf("no interface can be attached to: %s", strings.Join(whys, ", "))
}

// follow makes the attachments and what the program knows of the machine fit
// what the interfaces are now.
func (k *Kernel) follow() error {
	devices, err := k.network.devices()
	if err != nil {
		return err
	}
	if err := k.setOwn(devices); err != nil {
		return err
	}
	for index, a := range k.attached {
		if !slices.ContainsFunc(devices, func(d device) bool { return d.index == index }) {
			k.log.Info("interface is gone", "interface", a.device.name)
			if err := errors.Join(k.letGo(a), k.pins.link(a.mode, index).remove()); err != nil {
				return err
			}
			delete(k.attached, index)
		}
	}
	missing := slices.Clone(k.options.Interfaces)
	var status []Interface
	for _, d := range devices {
		a, known := k.attached[d.index]
		if !known && !k.wanted(d) {
			continue
		}
		if err := k.setMAC(d); err != nil {
			return err
		}
		if !known || !k.alive(a, d) {
			a = k.renew(a, d)
			k.attached[d.index] = a
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == d.name })
		status = append(status, Interface{d.name, a.mode, a.why})
	}
	for _, name := range missing {
		status = append(status, Interface{name, ModeUserspace, "there is no such interface"})
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = status
	return nil
}

// renew attaches where nothing is attached, or no longer.
func (k *Kernel) renew(old attachment, d device) attachment {
	if err := k.letGo(old); err != nil {
		k.log.Warn("attachment not ended", "interface", d.name, "error", err)
	}
	a := k.attach(d)
	if a.mode != old.mode || a.why != old.why {
		if a.mode == ModeUserspace {
			k.log.Error("not forwarding in the kernel", "interface", d.name, "why", a.why)
		} else {
			k.log.Info("forwarding in the kernel", "interface", d.name, "mode", a.mode, "why", a.why)
		}
	}
	return a
}

// wanted reports whether the program belongs at an interface. One that has it
// keeps it for as long as it is there.
func (k *Kernel) wanted(d device) bool {
	if len(k.options.Interfaces) > 0 {
		return slices.Contains(k.options.Interfaces, d.name)
	}
	if !d.ethernet || !d.up {
		return false
	}
	return slices.ContainsFunc(d.addresses, func(a netip.Addr) bool {
		if len(k.options.Addresses) > 0 {
			return slices.Contains(k.options.Addresses, a)
		}
		return isOwn(a)
	})
}

// setMAC tells the program which frames are for an interface.
func (k *Kernel) setMAC(d device) error {
	if d.index >= int(k.maps.Interfaces.MaxEntries()) {
		return nil // the program takes every frame there that is for somebody
	}
	if err := k.maps.Interfaces.Put(uint32(d.index), relayInterface{Mac: d.mac, Known: 1}); err != nil {
		return fmt.Errorf("tell the MAC address of %s: %w", d.name, err)
	}
	return nil
}
