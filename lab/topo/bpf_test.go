package topo_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/netport/netport/lab/need"
	"github.com/netport/netport/lab/topo"
)

// mirror sends UDP over IPv4 back to who sent it, ports unchanged, by native XDP.
func mirror() (*ebpf.Program, error) {
	const (
		pass, tx = 2, 3
		udp      = 17
	)
	swap := func(a, b int16, size asm.Size) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R4, asm.R2, a, size), asm.LoadMem(asm.R5, asm.R2, b, size),
			asm.StoreMem(asm.R2, a, asm.R5, size), asm.StoreMem(asm.R2, b, asm.R4, size),
		}
	}
	program := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data, data_end
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, 14+20+8),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 14, asm.Byte), asm.JNE.Imm(asm.R4, 0x45, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 23, asm.Byte), asm.JNE.Imm(asm.R4, udp, "pass"),
	}
	program = append(program, swap(0, 6, asm.Word)...) // Ethernet
	program = append(program, swap(4, 10, asm.Half)...)
	program = append(program, swap(26, 30, asm.Word)...) // IPv4
	program = append(program,
		asm.Mov.Imm(asm.R0, tx), asm.Return(),
		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"), asm.Return())
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: program})
}

// A veth pair as it is made loses what a native XDP program sends back; one that carries XDP does not.
func TestNativeXDPWorksWhereItIsCarried(t *testing.T) {
	for _, carried := range []bool{false, true} {
		l := topo.New(t)
		client, host := l.Public("client"), l.Public("host")
		if carried {
			host.CarryXDP()
		}
		program, err := mirror()
		if err != nil {
			t.Fatal(err)
		}
		host.Do(func() {
			device, err := net.InterfaceByName(host.Device())
			if err != nil {
				t.Fatal(err)
			}
			attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Index, Flags: link.XDPDriverMode})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { attached.Close() })
		})
		program.Close()
		const port = 7000
		conn := client.ListenUDP(port)
		if _, err := conn.WriteToUDPAddrPort([]byte("to and fro"), netip.AddrPortFrom(host.Addr4(), port)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience(carried))); err != nil {
			t.Fatal(err)
		}
		n, _, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
		if err != nil && !isTimeout(err) {
			t.Fatal(err)
		}
		if got := err == nil && n == len("to and fro"); got != carried {
			t.Errorf("carried: %t, came back: %t", carried, got)
		}
	}
}

// What is pinned in a host's BPF file system is seen by nobody else, belongs to the user it was made for, and ends when it
// is unmounted and with the lab.
func TestBPFFileSystemLeavesNothingBehind(t *testing.T) {
	need.Root(t)
	name := filepath.Join(topo.BPFDir, "pinned")
	pin := func() (id ebpf.MapID, err error) {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			return 0, err
		}
		defer m.Close()
		info, err := m.Info()
		if err != nil {
			return 0, err
		}
		id, _ = info.ID()
		return id, m.Pin(name)
	}
	wantGone := func(when string, id ebpf.MapID) {
		t.Helper()
		for late := time.After(10 * time.Second); ; { // the kernel frees it when it comes to it
			m, err := ebpf.NewMapFromID(id)
			if errors.Is(err, os.ErrNotExist) {
				return
			}
			if err == nil {
				m.Close()
			}
			select {
			case <-late:
				t.Fatalf("%s: the map is there still: %v", when, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	var last ebpf.MapID
	t.Run("lab", func(t *testing.T) {
		l := topo.New(t)
		host, other := l.Public("host"), l.Public("other")
		for _, h := range []*topo.Host{host, other} {
			h.MountBPF("nobody")
		}
		var first ebpf.MapID
		host.Inside(func() (err error) { first, err = pin(); return err })
		if out := host.Run("stat", "--format", "%U %A", topo.BPFDir); out != "nobody drwx-----T\n" {
			t.Errorf("the BPF file system belongs to %s", out)
		}
		if out := other.Run("ls", topo.BPFDir); strings.Contains(out, "pinned") {
			t.Errorf("another host sees %q", out)
		}
		if _, err := os.Stat(name); err == nil {
			t.Error("the machine sees what a host has pinned")
		}
		host.UnmountBPF()
		wantGone("unmounted", first)
		host.MountBPF("nobody")
		host.Inside(func() (err error) { last, err = pin(); return err })
	})
	wantGone("the lab has ended", last)
}
