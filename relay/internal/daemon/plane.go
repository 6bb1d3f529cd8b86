package daemon

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/rawip"
)

// pairsPerSession is for how many pairs the kernel plane has room for each
// session of the capacity: a tunnel may have several carriers, and a leg that
// moves takes a second place for a moment.
const pairsPerSession = 2

// openKernel opens the kernel plane. Where the configuration leaves the mode open
// and nothing can be had, user space carries everything, and why is returned. But
// not while an earlier relay's sessions are in the kernel: they are of more worth
// than a relay that knows nothing of them.
func (d *Daemon) openKernel() (plane *bpf.Kernel, why string, err error) {
	pinned := pinned(d.cfg.PinDir)
	if d.cfg.Mode == config.ModeUserSpace {
		if pinned {
			d.log.Warn("the kernel still has the program and the sessions of an earlier relay: netport-relay unload takes them down", "pin_dir", d.cfg.PinDir)
		}
		return nil, "the configuration says so", nil
	}
	if d.sender, err = rawip.Open(d.drops); err == nil {
		plane, err = bpf.Open(bpf.Options{
			Mode: d.cfg.Mode, Interfaces: d.cfg.Interfaces, PinDir: d.cfg.PinDir,
			First: d.cfg.First, Last: d.cfg.Last, PacketFirst: d.cfg.PacketFirst, PacketLast: d.cfg.PacketLast,
			Capacity: pairsPerSession * d.cfg.Capacity, Addresses: d.cfg.Addresses, Log: d.log,
		})
	}
	switch {
	case err == nil:
		return plane, "", nil
	case d.cfg.Mode != config.ModeAuto:
		return nil, "", fmt.Errorf(`%w; mode = "auto" falls back to user space`, err)
	case pinned:
		return nil, "", fmt.Errorf("%w; the sessions of the earlier relay go on in the kernel; netport-relay unload ends them", err)
	}
	return nil, err.Error(), nil
}

// pinned reports whether an earlier relay has left something in the kernel.
func pinned(dir string) bool {
	list, err := os.ReadDir(dir)
	return err == nil && len(list) > 0
}

// adopt takes up the sessions that an earlier relay has left in the kernel. They
// went on meanwhile.
func (d *Daemon) adopt() {
	if d.plane == nil {
		return
	}
	sessions, err := d.leases.Adopt(time.Now(), d.plane.Records())
	if err != nil {
		d.log.Warn("sessions of an earlier relay are given up", "error", err)
	}
	opened := 0
	for _, a := range sessions {
		if err := d.restore(a); err != nil {
			d.log.Warn("session of an earlier relay is given up", "session", a.ID, "error", err)
			d.end(a.ID, wire.ReasonInternal)
			continue
		}
		opened++
	}
	var tcp, udp []bpf.Pair
	for pair := range d.plane.Pairs() {
		if pair.Protocol == bpf.TCP {
			tcp = append(tcp, pair)
		} else {
			udp = append(udp, pair)
		}
	}
	taken := d.kernel.Adopt(tcp)
	for _, pair := range udp {
		d.udp.Renew(pair)
	}
	if len(sessions) > 0 || len(tcp)+len(udp) > 0 {
		d.log.Info("sessions adopted", "sessions", opened, "tcp", taken, "udp", len(udp))
	}
}

// restore opens a session again.
func (d *Daemon) restore(a lease.Adopted) error {
	d.kernel.Open(a.Session, a.Settled)
	if a.TCP() {
		if err := d.splice.Open(a.Session); err != nil {
			return err
		}
	}
	if a.UDP() {
		return d.udp.Restore(a.Session, a.Bound)
	}
	return nil
}

// leave ends the sessions of which the kernel carries nothing, and leaves the
// others to it and to the next daemon.
func (d *Daemon) leave() {
	left := 0
	for _, s := range d.leases.List() {
		flows, _ := d.kernel.Joined(s.ID)
		if flows == 0 && s.Bound == 0 {
			d.end(s.ID, wire.ReasonShutdown)
			continue
		}
		left++
		d.settle(s.ID)
	}
	d.log.Info("sessions left to the kernel", "sessions", left)
}

// settle has the kernel keep what of a session's traffic only the daemon knows.
func (d *Daemon) settle(id wire.SessionID) {
	if d.plane != nil {
		d.leases.Settle(id, d.splice.Traffic(id).Plus(d.udp.Settled(id)).Plus(d.kernel.Settled(id)))
	}
}

// dropPrivileges gives back what is not needed once everything is open. A kernel
// plane needs some for as long as it runs: interfaces come and go. So does a low
// shared UDP port: every leg that is bound there gets a socket of its own.
func (d *Daemon) dropPrivileges() error {
	var keep privilege.Set
	if d.plane != nil {
		keep = privilege.Of(unix.CAP_BPF, unix.CAP_NET_ADMIN)
	}
	if port := d.cfg.SharedUDP; port != 0 && port < 1024 {
		keep |= privilege.Of(unix.CAP_NET_BIND_SERVICE)
	}
	return d.secure(keep)
}

// mode returns what carries the packets and, if that is not the best there is,
// why.
func (d *Daemon) mode() (mode, why string) {
	if d.plane == nil {
		return config.ModeUserSpace, d.noPlane
	}
	var whys []string
	for _, i := range d.plane.Interfaces() {
		if i.Why != "" {
			whys = append(whys, i.Name+": "+i.Why)
		}
	}
	return d.plane.Name(), strings.Join(whys, "; ")
}
