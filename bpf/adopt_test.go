//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestNextOpenAdoptsTheTable(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	first := w.open(o)
	want := make(map[Pair]Terms)
	for n := range 5 {
		p := pairOf(TCP, n%2 == 1, n)
		want[p] = Terms{Lifetime: time.Duration(n) * time.Hour, Packets: 1000}
		if err := first.Add(p, want[p]); err != nil {
			t.Fatal(err)
		}
	}
	p := pairOf(TCP, false, 2)
	first.count(t, TCP, p.A, 7, 700)
	record, key := []byte("what a session is"), [24]byte{0: 1, 23: 2}
	if err := errors.Join(first.PutRecord(key, record), first.Admit(hostAddr(0, false), 28672)); err != nil {
		t.Fatal(err)
	}
	generation := first.table.generation
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second := w.open(o)
	if got := pairsOf(second); !maps.Equal(got, want) {
		t.Errorf("adopted %v, want %v", got, want)
	}
	if got := maps.Collect(second.Records()); len(got) != 1 || string(got[key]) != string(record) {
		t.Errorf("records %v", got)
	}
	var admission relayAdmission
	var one uint8
	if second.maps.Admitted.Iterate().Next(&admission, &one) {
		t.Error("who was admitted is so still")
	}
	if got := second.table.generation; got < generation {
		t.Errorf("generation %d was given before: the latest is %d", got, generation)
	}
	got, err := second.Remove(p)
	if want := (Counters{FromA: Traffic{7, 700}}); got != want || err != nil {
		t.Errorf("counters %v, %v; want %v", got, err, want)
	}
	// The slots of adopted pairs are not given away.
	for n := range o.Capacity - len(want) + 1 {
		if err := second.Add(pairOf(UDP, false, n), Terms{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Add(pairOf(UDP, false, o.Capacity), Terms{}); !errors.Is(err, ErrFull) {
		t.Errorf("a pair too many: %v", err)
	}
}

func TestHalfOfAChangeIsTidiedUp(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	o.Capacity = 3
	first := w.open(o)
	half, none, whole := pairOf(UDP, false, 0), pairOf(UDP, false, 1), pairOf(UDP, false, 2)
	for _, p := range []Pair{half, none, whole} {
		if err := first.Add(p, Terms{}); err != nil {
			t.Fatal(err)
		}
	}
	// Killed after one flow of two, after none, and between the end of a
	// direction and its flow.
	key := keyOf(UDP, half.A)
	first.maps.Flows.Delete(&key)
	for _, l := range []Leg{none.A, none.B} {
		key := keyOf(UDP, l)
		f, _, _ := first.flowLocked(key)
		first.table.slots[f.Slot].From[f.Direction].Generation = 0
	}
	first.Close()

	second := w.open(o)
	if got := slices.Collect(maps.Keys(pairsOf(second))); len(got) != 2 || !slices.Contains(got, half) || !slices.Contains(got, whole) {
		t.Errorf("adopted %v", got)
	}
	for _, p := range []Pair{half, whole} {
		if _, err := second.Remove(p); err != nil {
			t.Error(err)
		}
	}
	for n := range o.Capacity {
		if err := second.Add(pairOf(UDP, true, n), Terms{}); err != nil {
			t.Errorf("pair %d: %v", n, err)
		}
	}
}

// Kill and adopt, in every mode, while datagrams flow.
func TestNothingIsLostWhenTheDaemonIsKilledAndReturns(t *testing.T) {
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(mode, pinDir(t))
			p := pairOf(UDP, false, 0)
			kill := w.start(job{mode, o.PinDir, p}, nil)
			w.meet(false)
			ends := w.ends(p)
			var k *Kernel
			const count = 20_000
			lost := stream(t, ends[0], ends[1], count, func(arrived int) {
				switch {
				case arrived > count/3 && kill != nil:
					kill()
					kill = nil
				case arrived > count/2 && k == nil:
					k = w.open(o)
				}
			})
			if lost != 0 {
				t.Errorf("%d of %d datagrams were lost; drops %v", lost, count, k.Drops())
			}
			got, err := k.Counters(p)
			if want := (Counters{FromA: Traffic{count, count * payload}}); got != want || err != nil {
				t.Errorf("counted %v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestNothingIsLostInUpgrades(t *testing.T) {
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(mode, pinDir(t))
			k := w.open(o)
			p := pairOf(UDP, false, 0)
			if err := k.Add(p, Terms{}); err != nil {
				t.Fatal(err)
			}
			w.meet(false)
			ends := w.ends(p)
			const count = 20_000
			upgrades := 0
			lost := stream(t, ends[0], ends[1], count, func(arrived int) {
				if arrived/4000 <= upgrades {
					return
				}
				upgrades++
				before := programAt(t, k, 0)
				k.Close()
				k = w.open(o)
				if after := programAt(t, k, 0); after == before {
					t.Errorf("program %d was not replaced", before)
				}
			})
			if lost != 0 || upgrades < 3 {
				t.Errorf("%d of %d datagrams were lost in %d upgrades; drops %v", lost, count, upgrades, k.Drops())
			}
			got, err := k.Counters(p)
			if want := (Counters{FromA: Traffic{count, count * payload}}); got != want || err != nil {
				t.Errorf("counted %v, %v; want %v", got, err, want)
			}
		})
	}
}

// programAt returns the program that stands at one of the relay's interfaces.
func programAt(t *testing.T, k *Kernel, side int) ebpf.ProgramID {
	t.Helper()
	for _, a := range k.attached {
		if a.device.name == sides[side] {
			info, err := a.link.Info()
			if err != nil {
				t.Fatal(err)
			}
			return info.Program
		}
	}
	t.Fatalf("nothing is at %s", sides[side])
	return 0
}

// refused returns the program with a form that no verifier accepts.
func refused(t *testing.T, hook string) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := loadRelay()
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs[hook].Instructions = asm.Instructions{
		asm.LoadMem(asm.R0, asm.R1, 1<<12, asm.DWord).WithSymbol(hook),
		asm.Return(),
	}
	return spec
}

func TestRefusedProgramLeavesTheOldOne(t *testing.T) {
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(mode, pinDir(t))
			k := w.open(o)
			p := pairOf(UDP, false, 0)
			if err := k.Add(p, Terms{}); err != nil {
				t.Fatal(err)
			}
			w.meet(false)
			ends := w.ends(p)
			before := programAt(t, k, 0)
			k.Close()
			lost := stream(t, ends[0], ends[1], 1000, func(arrived int) {
				_, err := open(o, refused(t, hookOf(mode)))
				if err == nil || !strings.Contains(err.Error(), "the program that is attached stays") {
					t.Fatalf("a bad program: %v", err)
				}
			})
			if lost != 0 {
				t.Errorf("%d datagrams were lost", lost)
			}
			l, err := (pins{dir: o.PinDir}).link(mode, interfaceIndex(t, "a")).load()
			if l == nil || err != nil {
				t.Fatalf("the link is gone: %v", err)
			}
			defer l.Close()
			info, err := l.Info()
			if err != nil || info.Program != before {
				t.Errorf("program %v, %v stands there; want %v", info, err, before)
			}
		})
	}
}

func TestRefusedFormIsNotMissedWhereAnotherGoes(t *testing.T) {
	w := newWorld(t)
	k, err := open(w.options(ModeAuto, ""), refused(t, hookTC))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, i := range k.Interfaces() {
		if i.Mode != ModeGeneric || !strings.HasPrefix(i.Why, "tc: load relay_tc: ") {
			t.Errorf("%v", i)
		}
	}
	if _, err := open(w.options(ModeTC, ""), refused(t, hookTC)); err == nil || !strings.Contains(err.Error(), "load relay_tc") {
		t.Errorf("nothing goes: %v", err)
	}
}

func TestPinnedStateThatDoesNotFitStays(t *testing.T) {
	for name, change := range map[string]func(*Options, *Kernel){
		"capacity": func(o *Options, _ *Kernel) { o.Capacity++ },
		"layout": func(_ *Options, k *Kernel) {
			k.maps.OwnList.Put(uint32(0), relayAddress{Addr: [4]uint32{layout + 1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.options(ModeTC, pinDir(t))
			k := w.open(o)
			p := pairOf(UDP, false, 0)
			if err := k.Add(p, Terms{}); err != nil {
				t.Fatal(err)
			}
			w.meet(false)
			ends := w.ends(p)
			before := pinned(t, o.PinDir)
			change(&o, k)
			k.Close()
			if _, err := Open(o); err == nil || !strings.HasSuffix(err.Error(), "with: netport-relay unload") {
				t.Errorf("the error is %v", err)
			}
			if after := pinned(t, o.PinDir); !slices.Equal(before, after) {
				t.Errorf("pinned is %v; it was %v", after, before)
			}
			if lost := stream(t, ends[0], ends[1], 1000, nil); lost != 0 {
				t.Errorf("%d datagrams were lost", lost)
			}
			if err := Unload(o.PinDir); err != nil {
				t.Fatal(err)
			}
			w.open(o)
		})
	}
}

func TestOldPacketsOfAReusedPortAreNotDelivered(t *testing.T) {
	w := newWorld(t)
	k := w.open(w.options(ModeTC, ""))
	old := pairOf(UDP, false, 0)
	if err := k.Add(old, Terms{}); err != nil {
		t.Fatal(err)
	}
	w.meet(false)
	ends := w.ends(old)
	if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
		t.Fatalf("%d datagrams were lost", lost)
	}
	stale, _, err := k.flowLocked(keyOf(UDP, old.A))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Remove(old); err != nil {
		t.Fatal(err)
	}
	// The next session has the same slot and the same ports; a flow of the old
	// one, as the program may have found it just before, leads nowhere.
	k.table.next = int(stale.Slot)
	anew := old
	anew.A.Remote = netip.AddrPortFrom(old.A.Remote.Addr(), old.A.Remote.Port()+1)
	if err := k.Add(anew, Terms{}); err != nil {
		t.Fatal(err)
	}
	if f, _, _ := k.flowLocked(keyOf(UDP, anew.A)); f.Slot != stale.Slot {
		t.Fatalf("the slot is %d, not %d", f.Slot, stale.Slot)
	}
	key := keyOf(UDP, old.A)
	if err := k.maps.Flows.Put(&key, &stale); err != nil {
		t.Fatal(err)
	}
	before := k.Drops()["stale"]
	silent(t, ends[0], ends[1])
	if got := k.Drops()["stale"] - before; got != 10 {
		t.Errorf("%d packets were dropped as stale, want 10", got)
	}
	if got, err := k.Counters(anew); got != (Counters{}) || err != nil {
		t.Errorf("the new pair has counted %v, %v", got, err)
	}
	// The same 4-tuple again: it works, and begins at zero.
	if _, err := k.Remove(anew); err != nil {
		t.Fatal(err)
	}
	if err := k.Add(old, Terms{}); err != nil {
		t.Fatal(err)
	}
	if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
		t.Errorf("%d datagrams were lost", lost)
	}
	if got, _ := k.Counters(old); got.FromA.Packets != 100 {
		t.Errorf("counted %v", got)
	}
}

func interfaceIndex(t *testing.T, name string) int {
	t.Helper()
	n, err := openNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	devices, err := n.devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.name == name {
			return d.index
		}
	}
	t.Fatal(fmt.Errorf("interface %s: %w", name, os.ErrNotExist))
	return 0
}
