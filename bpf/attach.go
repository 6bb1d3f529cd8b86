//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// attachment is the program at one interface.
type attachment struct {
	device device
	mode   string
	why    string
	link   link.Link // nil: a tc filter, or none
}

// attachTCX is another in tests, which run on kernels that have it.
var attachTCX = link.AttachTCX

// hookOf returns the form of the program that a mode needs.
func hookOf(mode string) string {
	if mode == ModeTC {
		return hookTC
	}
	return hookXDP
}

// modesFor returns the modes to try at an interface, best first. Options.Mode
// states the rule.
func (k *Kernel) modesFor(d device) []string {
	switch {
	case k.options.Mode != ModeAuto:
		return []string{k.options.Mode}
	case d.virtual:
		return []string{ModeTC, ModeGeneric}
	default:
		return []string{ModeXDP, ModeTC, ModeGeneric}
	}
}

// attach puts the program at an interface, in the best mode that goes. One that
// stands there in the same mode is replaced, and those in other modes go when
// the new one is there. If no mode goes, what is there stays.
func (k *Kernel) attach(d device) attachment {
	var whys []string
	modes := k.modesFor(d)
	if len(modes) == 1 && modes[0] != ModeTC {
		k.detachOthers(d, ModeTC, modes[0]) // only one kind of XDP can be at an interface
	}
	for _, mode := range modes {
		l, err := k.attachIn(mode, d)
		if err != nil {
			whys = append(whys, mode+": "+err.Error())
			continue
		}
		k.detachOthers(d, mode)
		return attachment{d, mode, strings.Join(whys, "; "), l}
	}
	return attachment{d, ModeUserspace, strings.Join(whys, "; "), nil}
}

func (k *Kernel) attachIn(mode string, d device) (link.Link, error) {
	if !d.ethernet {
		return nil, errors.New("not an Ethernet interface")
	}
	program := k.programs[hookOf(mode)]
	if program.err != nil {
		return nil, program.err
	}
	if l, err := k.pins.link(mode, d.index).load(); l != nil || err != nil {
		if err != nil {
			return nil, err
		}
		if err := l.Update(program.Program); err != nil {
			l.Close()
			return nil, fmt.Errorf("replace the program: %w", err)
		}
		return l, nil
	}
	l, err := k.attachNew(mode, d, program.Program)
	if l == nil || err != nil {
		return nil, err
	}
	if !k.pins.keep() {
		return l, nil
	}
	if err := l.Pin(k.pins.link(mode, d.index).path()); err != nil {
		l.Close()
		return nil, fmt.Errorf("pin the link: %w", err)
	}
	return l, nil
}

func (k *Kernel) attachNew(mode string, d device, program *ebpf.Program) (link.Link, error) {
	switch mode {
	case ModeXDP:
		return link.AttachXDP(link.XDPOptions{Program: program, Interface: d.index, Flags: link.XDPDriverMode})
	case ModeGeneric:
		return link.AttachXDP(link.XDPOptions{Program: program, Interface: d.index, Flags: link.XDPGenericMode})
	}
	// Before whatever else is there: it sees what the relay does not want.
	l, err := attachTCX(link.TCXOptions{Program: program, Interface: d.index, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, k.network.setFilter(d.index, k.pins.dir, program)
	}
	return l, err
}

// load opens the link, or returns nil if there is none or its interface is gone.
func (p pinnedLink) load() (link.Link, error) {
	if p.directory == "" {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(p.path(), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the pinned link: %w", err)
	}
	if linkAt(l) == p.ifindex {
		return l, nil
	}
	return nil, errors.Join(l.Close(), os.Remove(p.path()))
}

// linkAt returns the interface of a link, 0 if that is gone.
func linkAt(l link.Link) int {
	info, err := l.Info()
	if err != nil {
		return 0
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex)
	}
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex)
	}
	return 0
}

// detachOthers takes the program away from an interface, except in some modes.
func (k *Kernel) detachOthers(d device, keep ...string) {
	for _, mode := range []string{ModeXDP, ModeTC, ModeGeneric} {
		if slices.Contains(keep, mode) {
			continue
		}
		err := k.pins.link(mode, d.index).remove()
		if mode == ModeTC {
			err = errors.Join(err, k.network.removeFilter(d.index, k.pins.dir))
		}
		if err != nil {
			k.log.Warn("program not detached", "interface", d.name, "mode", mode, "error", err)
		}
	}
}

// remove ends an attachment that is pinned, if it is.
func (p pinnedLink) remove() error {
	l, err := p.load()
	if l == nil {
		return err
	}
	// Without this it would end a moment after the last reference to it.
	return errors.Join(l.Detach(), l.Close(), os.Remove(p.path()))
}

// letGo forgets an attachment; it stays if it is pinned.
func (k *Kernel) letGo(a attachment) error {
	if a.link != nil {
		return a.link.Close()
	}
	if a.mode == ModeTC && !k.pins.keep() {
		return k.network.removeFilter(a.device.index, k.pins.dir)
	}
	return nil
}

// alive reports whether an attachment is still what it was.
func (k *Kernel) alive(a attachment, d device) bool {
	switch {
	case a.mode == ModeUserspace:
		return false
	case a.link != nil:
		return linkAt(a.link) == d.index
	default:
		f, err := k.network.filter(d.index, k.pins.dir)
		return f != nil && err == nil
	}
}
