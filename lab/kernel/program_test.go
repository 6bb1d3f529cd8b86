package kernel

import (
	"bytes"
	"debug/elf"
	"net"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/netport/netport/lab/topo"
)

// attached are the BPF programs that see what arrives at a host's device: at XDP and at tc.
func attached(t testing.TB, host *topo.Host, device string) (programs []ebpf.ProgramID) {
	t.Helper()
	var err error
	host.Do(func() {
		var found netlink.Link
		if found, err = netlink.LinkByName(device); err != nil {
			return
		}
		if xdp := found.Attrs().Xdp; xdp != nil && xdp.Attached {
			programs = append(programs, ebpf.ProgramID(xdp.ProgId))
		}
		var at *link.QueryResult
		at, err = link.QueryPrograms(link.QueryOptions{Target: found.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return
		}
		for _, p := range at.Programs {
			programs = append(programs, p.ID)
		}
	})
	if err != nil {
		t.Fatalf("%s: programs at %s: %v", host.Name(), device, err)
	}
	return programs
}

// wantReplaced wants a host's programs to be others than they were, and as many.
func wantReplaced(t testing.TB, was, now []ebpf.ProgramID) {
	t.Helper()
	if len(now) != len(was) || slices.ContainsFunc(now, func(id ebpf.ProgramID) bool { return slices.Contains(was, id) }) {
		t.Errorf("the programs were %v and are %v, want as many others", was, now)
	}
}

// newer is a program like the one it is made of, in another file: what a new version is to the system.
func newer(program []byte) []byte { return append(program, "another build"...) }

// refused is a relay whose kernel programs no verifier lets pass: their first instruction reads by a register that was
// never set. It is found where the relay carries it, as an ELF file of its own.
func refused(t testing.TB) func(program []byte) []byte {
	return func(program []byte) []byte {
		const readsByR2 = "\x79\x20\x00\x00\x00\x00\x00\x00" // r0 = *(u64 *)(r2 + 0)
		spoilt := 0
		for from := 0; ; {
			i := bytes.Index(program[from:], []byte(elf.ELFMAG))
			if i < 0 {
				break
			}
			from += i + 1
			object := program[from-1:]
			file, err := elf.NewFile(bytes.NewReader(object))
			if err != nil || file.Machine != elf.EM_BPF {
				continue // the relay itself, or a string
			}
			for _, section := range file.Sections {
				if section.Flags&elf.SHF_EXECINSTR != 0 && section.Size > 0 {
					copy(object[section.Offset:], readsByR2)
					spoilt++
				}
			}
		}
		if spoilt == 0 {
			t.Fatal("the relay's program carries no program for the kernel")
		}
		return program
	}
}

func deviceOf(host *topo.Host, name string) (device *net.Interface, err error) {
	host.Do(func() { device, err = net.InterfaceByName(name) })
	return device, err
}
