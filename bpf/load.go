//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// layout numbers the meaning of what the maps hold. It is raised when a program
// or a daemon would misread what another has written, although the sizes are the
// same. It lies in entry 0 of own_list, which stands for no address.
const layout = 1

// maxReasons leaves room for reasons of later versions, so that they can adopt
// the counters.
const maxReasons = 64

// hooks are where the program can stand, by the names of its two forms.
const (
	hookXDP = relayProgRelayXdp
	hookTC  = relayProgRelayTc
)

// configure sets in spec what is decided before it is loaded.
func configure(spec *ebpf.CollectionSpec, o Options, askers [2]uint32) error {
	for name, port := range map[string]uint16{
		"session_first": o.First, "session_last": o.Last,
		"packet_first": o.PacketFirst, "packet_last": o.PacketLast,
	} {
		if err := spec.Variables[name].Set(port); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	for name, index := range map[string]uint32{"asker4": askers[0], "asker6": askers[1]} {
		if err := spec.Variables[name].Set(index); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	capacity := uint32(o.Capacity)
	spec.Maps["flows"].MaxEntries = 2 * capacity
	spec.Maps["slots"].MaxEntries = capacity
	// Few sessions use packet mode: their sources take memory as they come.
	admitted := spec.Maps["admitted"]
	admitted.MaxEntries = min(maxAdmitted, 8*capacity)
	admitted.Flags |= unix.BPF_F_NO_PREALLOC
	spec.Maps["leases"].MaxEntries = capacity
	spec.Maps["drops"].MaxEntries = maxReasons
	return nil
}

// loadMaps makes the maps, or adopts those that are pinned.
func loadMaps(spec *ebpf.CollectionSpec, p pins) (_ map[string]*ebpf.Map, err error) {
	loaded := make(map[string]*ebpf.Map)
	defer func() {
		if err != nil {
			closeMaps(loaded)
		}
	}()
	for _, name := range mapNames(spec) {
		m, err := loadMap(spec.Maps[name], p)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		loaded[name] = m
	}
	return loaded, checkLayout(loaded["own_list"], p)
}

// mapNames lists the maps that can be pinned. Those of constants, whose names
// begin with a dot, are every program's own.
func mapNames(spec *ebpf.CollectionSpec) (names []string) {
	for name := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func loadMap(spec *ebpf.MapSpec, p pins) (*ebpf.Map, error) {
	if !p.keep() {
		return ebpf.NewMap(spec)
	}
	file := p.of(spec.Name)
	m, err := ebpf.LoadPinnedMap(file, nil)
	if err == nil {
		if err := spec.Compatible(m); err != nil {
			m.Close()
			return nil, errShape(p, err)
		}
		return m, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, err
	}
	if err := m.Pin(file); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin it: %w", err)
	}
	return m, nil
}

// checkLayout reads or sets the layout of the maps.
func checkLayout(list *ebpf.Map, p pins) error {
	var entry relayAddress
	if err := list.Lookup(uint32(0), &entry); err != nil {
		return fmt.Errorf("read the layout of the maps: %w", err)
	}
	switch entry.Addr[0] {
	case layout:
		return nil
	case 0: // new
		entry.Addr[0] = layout
		if err := list.Put(uint32(0), entry); err != nil {
			return fmt.Errorf("write the layout of the maps: %w", err)
		}
		return nil
	}
	return errShape(p, fmt.Errorf("their layout is %d, not %d", entry.Addr[0], layout))
}

func errShape(p pins, why error) error {
	return fmt.Errorf("what another version or configuration has pinned in %s does not fit: %w; end it and its sessions with: netport-relay unload", p.dir, why)
}

func closeMaps(list map[string]*ebpf.Map) {
	for _, m := range list {
		m.Close()
	}
}

// forms is the program in its forms, one for each hook, or why the kernel
// has refused a form.
type forms map[string]struct {
	*ebpf.Program
	err error
}

// loadPrograms loads the forms that a mode needs, each by itself: a kernel may
// lack what one of them needs.
func loadPrograms(spec *ebpf.CollectionSpec, loaded map[string]*ebpf.Map, mode string) forms {
	hooks := []string{hookOf(mode)}
	if mode == ModeAuto {
		hooks = []string{hookXDP, hookTC}
	}
	list := make(forms)
	for _, hook := range hooks {
		one := spec.Copy()
		maps.DeleteFunc(one.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != hook })
		entry := list[hook]
		c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: loaded})
		if err != nil {
			entry.err = fmt.Errorf("load %s: %w", hook, err)
		} else {
			entry.Program = c.DetachProgram(hook)
			c.Close()
		}
		list[hook] = entry
	}
	return list
}

func (l forms) close() {
	for _, p := range l {
		if p.Program != nil {
			p.Close()
		}
	}
}
