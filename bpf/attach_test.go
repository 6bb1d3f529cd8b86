//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// withoutTCX makes the kernel one before 6.6, as far as an attachment sees it.
func withoutTCX(t *testing.T) {
	before := attachTCX
	attachTCX = func(link.TCXOptions) (link.Link, error) { return nil, ebpf.ErrNotSupported }
	t.Cleanup(func() { attachTCX = before })
}

// filtersAt counts the filters of an interface's incoming packets.
func filtersAt(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return 0 // no qdisc
	}
	return len(list)
}

func TestFilterWhereThereIsNoTCX(t *testing.T) {
	withoutTCX(t)
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	p := pairOf(UDP, false, 0)
	k := w.open(o)
	if err := k.Add(p, Terms{}); err != nil {
		t.Fatal(err)
	}
	w.meet(false)
	ends := w.ends(p)
	const count = 10_000
	opened := 1
	lost := stream(t, ends[0], ends[1], count, func(arrived int) {
		if arrived/2500 < opened {
			return
		}
		opened++
		k.Close()
		k = w.open(o)
	})
	if lost != 0 || opened < 3 {
		t.Errorf("%d of %d datagrams were lost in %d upgrades; drops %v", lost, count, opened-1, k.Drops())
	}
	if n := filtersAt(t, "a"); n != 1 {
		t.Errorf("%d filters are at a, want 1", n)
	}
	k.Close()
	if err := Unload(o.PinDir); err != nil {
		t.Fatal(err)
	}
	if n := filtersAt(t, "a"); n != 0 {
		t.Errorf("after unload %d filters are left", n)
	}
	silent(t, ends[0], ends[1])
}

func TestFilterGoesWithAProcessThatCannotPin(t *testing.T) {
	withoutTCX(t)
	w := newWorld(t)
	k := w.open(w.options(ModeTC, ""))
	if n := filtersAt(t, "a"); n != 1 {
		t.Errorf("%d filters are at a, want 1", n)
	}
	k.Close()
	if n := filtersAt(t, "a"); n != 0 {
		t.Errorf("%d filters are left", n)
	}
}

// clsact is somebody's own where there are more filters.
func TestFilterOfSomebodyElseStays(t *testing.T) {
	withoutTCX(t)
	w := newWorld(t)
	l, err := netlink.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	const next = -1 // TC_ACT_UNSPEC
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, next), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	other := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: "somebody else's", DirectAction: true,
	}
	if err := errors.Join(netlink.QdiscAdd(clsact(l.Attrs().Index)), netlink.FilterAdd(other)); err != nil {
		t.Fatal(err)
	}
	o := w.options(ModeTC, pinDir(t))
	k := w.open(o)
	if n := filtersAt(t, "a"); n != 2 {
		t.Errorf("%d filters are at a, want 2", n)
	}
	k.Close()
	if err := Unload(o.PinDir); err != nil {
		t.Fatal(err)
	}
	if n := filtersAt(t, "a"); n != 1 {
		t.Errorf("%d filters are left, want 1", n)
	}
}

func TestAnotherXDPProgramMakesTheNextModeTaken(t *testing.T) {
	w := newWorld(t)
	w.passXDP("a")
	k := w.open(w.options(ModeXDP, pinDir(t)))
	list := k.Interfaces()
	if list[0].Mode != ModeUserspace || !strings.HasPrefix(list[0].Why, "xdp: ") || list[1] != (Interface{"b", ModeXDP, ""}) {
		t.Errorf("interfaces %v", list)
	}
	k.Close()
	// As if it were hardware: tc comes after XDP.
	k = w.open(w.options(ModeAuto, pinDir(t)))
	a := k.attach(device{index: interfaceIndex(t, "a"), name: "a", ethernet: true})
	defer a.link.Close()
	if a.mode != ModeTC || !strings.HasPrefix(a.why, "xdp: ") {
		t.Errorf("attached in mode %s: %s", a.mode, a.why)
	}
}

func TestNothingToAttachToIsAnError(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeAuto, "")
	o.Interfaces = []string{"eth7", "lo"}
	_, err := Open(o)
	if err == nil || !strings.Contains(err.Error(), "lo (tc: not an Ethernet interface; xdp-generic: not an Ethernet interface), eth7 (there is no such interface)") {
		t.Errorf("the error is %v", err)
	}
}

func TestModeOfPinnedProgramCanBeChanged(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	index := interfaceIndex(t, "a")
	for _, mode := range []string{ModeTC, ModeXDP, ModeGeneric, ModeTC, ModeAuto} {
		o.Mode = mode
		k := w.open(o)
		k.Close()
		if mode == ModeAuto {
			mode = ModeTC
		}
		var links []string
		for _, name := range pinned(t, o.PinDir) {
			if strings.HasPrefix(name, linkPrefix) && strings.HasSuffix(name, fmt.Sprint("-", index)) {
				links = append(links, name)
			}
		}
		if want := []string{fmt.Sprintf("link-%s-%d", mode, index)}; !slices.Equal(links, want) {
			t.Errorf("pinned at a is %v, want %v", links, want)
		}
	}
}

func TestInterfacesAreFollowed(t *testing.T) {
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(mode, pinDir(t))
			k := w.open(o)
			w.run(k, func(Event) {})
			p := pairOf(UDP, false, 0)
			if err := k.Add(p, Terms{}); err != nil {
				t.Fatal(err)
			}
			w.meet(false)
			ends := w.ends(p)
			flows := func(when string) {
				t.Helper()
				if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
					t.Errorf("%s: %d datagrams were lost; drops %v", when, lost, k.Drops())
				}
			}
			flows("first")

			b, err := netlink.LinkByName("b")
			if err == nil {
				err = errors.Join(netlink.LinkSetDown(b), netlink.LinkSetUp(b))
			}
			if err != nil {
				t.Fatal(err)
			}
			w.meet(false)
			flows("after down and up")

			if err := netlink.LinkDel(b); err != nil {
				t.Fatal(err)
			}
			gone := Interface{"b", ModeUserspace, "there is no such interface"}
			await(t, "the interface is missed", func() bool { return slices.Contains(k.Interfaces(), gone) })
			if _, err := os.Stat(k.pins.link(mode, b.Attrs().Index).path()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its link is still pinned: %v", err)
			}
			w.cable(1)
			back := Interface{"b", mode, ""}
			await(t, "the interface is back", func() bool { return slices.Contains(k.Interfaces(), back) })
			w.meet(false)
			ends[1].Close()
			ends[1] = w.dial(1, p.B.Remote, netip.AddrPortFrom(p.B.Local, p.B.Port))
			defer ends[1].Close()
			flows("after it came back")
		})
	}
}
