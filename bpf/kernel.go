//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The modes of a kernel plane: where in the system its program stands.
const (
	// ModeAuto takes the best mode that an interface allows.
	ModeAuto = "auto"
	// ModeXDP is XDP in the driver of the interface, before the system spends
	// anything on a packet.
	ModeXDP = "xdp"
	// ModeTC is the ingress hook of traffic control. It sees packets that were
	// joined (GRO, GSO) and keeps all offloads.
	ModeTC = "tc"
	// ModeGeneric is XDP for drivers without it: slow, and for any interface.
	ModeGeneric = "xdp-generic"
	// ModeUserspace is what is left where nothing else is possible. Open refuses
	// it: it is no kernel plane.
	ModeUserspace = "userspace"
)

// MaxCapacity is how many pairs a table can have: 4 GiB of slots.
const MaxCapacity = 1 << 25

// maxAdmitted is how many sources can be admitted to packet ports at once.
const maxAdmitted = 1 << 20

// maxOwn is how many addresses of its own a relay can have: as many as the list
// in the kernel has entries but the first.
const maxOwn = 63

// Errors of the table that a caller may tell apart.
var (
	// ErrFull says that the table holds as many pairs as it can.
	ErrFull = errors.New("the kernel's table is full")

	errClosed = errors.New("the kernel plane is closed")
)

// Options say how a kernel plane works.
type Options struct {
	// Mode is one of the Mode constants but ModeUserspace. ModeAuto means, for
	// an interface of hardware: ModeXDP, else ModeTC, else ModeGeneric; and for
	// one without (veth, bridge, tap, virtio_net and other devices of virtual
	// machines): ModeTC, else ModeGeneric. XDP there costs the offloads that
	// make such interfaces fast.
	Mode string
	// Interfaces are the names of those to attach to, now or when they appear.
	// None stands for every Ethernet interface that is up and has one of the
	// relay's addresses.
	Interfaces []string
	// PinDir is a directory on a bpffs. With it the kernel forwards on without
	// the process, and the next Open adopts what is there; the pinned state
	// belongs to one Kernel at a time. If it is empty or cannot be used, which
	// is said to Log, forwarding ends with the process.
	PinDir string
	// First and Last bound the session ports, PacketFirst and PacketLast the
	// packet ports among them; both 0: there are none.
	First, Last, PacketFirst, PacketLast uint16
	// Capacity is how many pairs the table holds, at most MaxCapacity. The
	// kernel's memory for it is taken at once: about 400 bytes each.
	Capacity int
	// Addresses are the relay's own, at most 63. None stands for all of its
	// interfaces, as they come and go.
	Addresses []netip.Addr
	Log       *slog.Logger
}

func (o *Options) check() error {
	switch o.Mode {
	case ModeAuto, ModeXDP, ModeTC, ModeGeneric:
	default:
		return fmt.Errorf("mode %q is none of %s, %s, %s, %s", o.Mode, ModeAuto, ModeXDP, ModeTC, ModeGeneric)
	}
	if o.First == 0 || o.First > o.Last {
		return fmt.Errorf("session ports %d-%d", o.First, o.Last)
	}
	packetMode := o.PacketFirst != 0 || o.PacketLast != 0
	if packetMode && (o.PacketFirst < o.First || o.PacketFirst > o.PacketLast || o.PacketLast > o.Last) {
		return fmt.Errorf("packet ports %d-%d are not inside the session ports %d-%d", o.PacketFirst, o.PacketLast, o.First, o.Last)
	}
	if o.Capacity < 1 || o.Capacity > MaxCapacity {
		return fmt.Errorf("capacity %d is not from 1 to %d", o.Capacity, MaxCapacity)
	}
	if len(o.Addresses) > maxOwn {
		return fmt.Errorf("%d addresses are more than %d", len(o.Addresses), maxOwn)
	}
	for _, a := range o.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() {
			return fmt.Errorf("address %v is none of a relay", a)
		}
	}
	return nil
}

// Interface is a network interface as the plane uses it.
type Interface struct {
	Name string
	Mode string // one of the Mode constants; ModeUserspace: not attached
	Why  string // why no better mode was possible; empty if none is better
}

// Kernel is the plane that forwards in the kernel. It owns the maps, the
// attachments of the program and the pins of both; its methods may be called
// from several goroutines at once.
type Kernel struct {
	// Constant.
	options  Options
	log      *slog.Logger
	pins     pins
	network  *network
	maps     relayMaps
	programs forms
	// interfaces tells of changes that matter for attachments, routes of those
	// for the ways of packets.
	interfaces, routes *changes

	attached map[int]attachment // by ifindex; owned by Open, then by Run

	mu     sync.RWMutex // guards the following
	closed bool
	table  table
	own    own
	status []Interface
}

var _ Plane = (*Kernel)(nil)

// Open loads the program and attaches it. What an earlier process has pinned is
// adopted: the table with its counters, and the attachments, in which the
// program is replaced without losing a packet. If the kernel refuses the
// program, or the pinned state does not fit, all that was there stays and goes
// on forwarding, and the error says what to do.
//
// Open needs CAP_BPF and CAP_NET_ADMIN. The interfaces are those of the network
// namespace of the calling thread.
func Open(o Options) (*Kernel, error) {
	spec, err := loadRelay()
	if err != nil {
		return nil, fmt.Errorf("open the kernel plane: %w", err)
	}
	k, err := open(o, spec)
	if err != nil {
		return nil, fmt.Errorf("open the kernel plane: %w", err)
	}
	return k, nil
}

func open(o Options, spec *ebpf.CollectionSpec) (_ *Kernel, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	k := &Kernel{options: o, log: o.Log, attached: make(map[int]attachment)}
	k.options.Addresses = slices.Clone(o.Addresses)
	defer func() {
		if err != nil {
			err = errors.Join(err, k.abandon())
		}
	}()
	if k.network, err = openNetwork(); err != nil {
		return nil, err
	}
	k.interfaces, err = openChanges(unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, err
	}
	k.routes, err = openChanges(unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, err
	}
	if k.pins, err = openPins(o.PinDir, o.Log); err != nil {
		return nil, err
	}
	askers, err := k.askers()
	if err != nil {
		return nil, err
	}
	if err := configure(spec, o, askers); err != nil {
		return nil, err
	}
	loaded, err := loadMaps(spec, k.pins)
	if err != nil {
		return nil, err
	}
	k.programs = loadPrograms(spec, loaded, o.Mode)
	if err := (&ebpf.Collection{Maps: loaded}).Assign(&k.maps); err != nil {
		closeMaps(loaded)
		return nil, err
	}
	if err := k.adopt(); err != nil {
		return nil, err
	}
	if err := k.attachFirst(); err != nil {
		return nil, err
	}
	return k, nil
}

// abandon gives up an open that has failed. What it has pinned in an empty
// directory would stand in the way of the next one.
func (k *Kernel) abandon() error {
	err := k.release()
	if k.pins.empty {
		err = errors.Join(err, unload(k.pins.dir))
	}
	return err
}

// Name implements Plane: the modes in use, best first.
func (k *Kernel) Name() string {
	var names []string
	list := k.Interfaces()
	for _, mode := range []string{ModeXDP, ModeTC, ModeGeneric} {
		if slices.ContainsFunc(list, func(i Interface) bool { return i.Mode == mode }) {
			names = append(names, mode)
		}
	}
	if names == nil {
		return ModeUserspace
	}
	return strings.Join(names, ", ")
}

// Interfaces says where the plane is attached and how.
func (k *Kernel) Interfaces() []Interface {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.status)
}

// Persistent reports whether the kernel forwards on when the process ends: the
// PinDir could be used.
func (k *Kernel) Persistent() bool { return k.pins.keep() }

// Close lets go of everything. With a PinDir that could be used, the kernel
// forwards on by what is pinned, until pairs expire or Unload takes it down;
// else all ends. It is called when Run has returned.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	if err := k.release(); err != nil {
		return fmt.Errorf("close the kernel plane: %w", err)
	}
	return nil
}

// release gives back what open has taken so far.
func (k *Kernel) release() error {
	var errs []error
	for _, a := range k.attached {
		errs = append(errs, k.letGo(a))
	}
	errs = append(errs, k.table.unmap(), k.pins.close(), k.interfaces.close(), k.routes.close())
	k.programs.close()
	if k.maps.Flows != nil {
		errs = append(errs, k.maps.Close())
	}
	if k.network != nil {
		k.network.close()
	}
	return errors.Join(errs...)
}
