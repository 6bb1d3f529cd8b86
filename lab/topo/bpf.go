package topo

import (
	"errors"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/need"
)

// BPFDir is where a host has its BPF file system, once MountBPF has mounted one.
const BPFDir = "/sys/fs/bpf"

// MountBPF gives the host a BPF file system of its own, in which the named user may pin. Only the host's programs see it,
// and it ends with them and the lab: what is pinned there keeps nothing on the machine.
func (h *Host) MountBPF(owner string) {
	h.t.Helper()
	uid, gid := h.lookupUser(owner)
	h.Inside(func() error {
		if err := unix.Mount("bpf", BPFDir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return os.NewSyscallError("mount a BPF file system", err)
		}
		return os.Chown(BPFDir, int(uid), int(gid))
	})
}

// UnmountBPF takes the host's BPF file system away with all that is pinned there, as a reboot does.
func (h *Host) UnmountBPF() {
	h.t.Helper()
	h.Inside(func() error { return os.NewSyscallError("unmount the BPF file system", unix.Unmount(BPFDir, 0)) })
}

// Inside runs f inside the host's network and with its view of files, on a thread of its own, and ends the test if it
// fails. Goroutines that f starts do not run there.
func (n *Node) Inside(f func() error) {
	n.t.Helper()
	var err error
	n.space.Inside(func() { err = f() })
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// PlainFrames makes the host's uplink carry, both ways, what a cable would: packets no larger than the MTU, whose
// checksums are whole. Between veth devices both are put off to save work, which an XDP program at the host would see.
func (h *Host) PlainFrames() { h.plainFrames(h.device, h.name) }

// CarryXDP makes the host's uplink fit for native XDP, beside PlainFrames: a veth device takes what a program at its other
// end sends back only if it runs a program itself. The one it gets here passes everything.
func (h *Host) CarryXDP() { h.carryXDP(h.device, h.name) }

// PlainFrames is that of a Host for its second uplink.
func (s Second) PlainFrames() { s.host.plainFrames(s.Device, s.far) }

// CarryXDP is that of a Host for its second uplink.
func (s Second) CarryXDP() { s.host.carryXDP(s.Device, s.far) }

func (h *Host) plainFrames(near, far string) {
	h.t.Helper()
	need.Program(h.t, "ethtool")
	for node, device := range map[*Node]string{h.Node: near, h.parent.Node: far} {
		node.Run("ethtool", "--offload", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
	}
}

func (h *Host) carryXDP(near, far string) {
	h.t.Helper()
	h.plainFrames(near, far)
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		h.t.Fatalf("%s: load an XDP program: %v", h.name, err)
	}
	defer pass.Close() // the link holds it
	var attached link.Link
	h.parent.Do(func() {
		var device *net.Interface
		if device, err = net.InterfaceByName(far); err == nil {
			attached, err = link.AttachXDP(link.XDPOptions{Program: pass, Interface: device.Index, Flags: link.XDPDriverMode})
		}
	})
	if err != nil {
		h.t.Fatalf("%s: attach an XDP program at %s: %v", h.parent.name, far, err)
	}
	h.t.Cleanup(func() {
		if err := attached.Close(); err != nil && !errors.Is(err, unix.ENODEV) {
			h.t.Errorf("%s: detach an XDP program: %v", h.parent.name, err)
		}
	})
}
