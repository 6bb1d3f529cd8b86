//go:build linux

package bpf

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

func TestWithoutAPinDirAllEndsWithTheProcess(t *testing.T) {
	w := newWorld(t)
	var said bytes.Buffer
	o := w.options(ModeXDP, filepath.Join(t.TempDir(), "relay"))
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	k := w.open(o)
	if k.Persistent() {
		t.Error("the plane says that it outlasts the process")
	}
	if !strings.Contains(said.String(), "mount -t bpf bpf /sys/fs/bpf") {
		t.Errorf("the log does not say what to do: %s", &said)
	}
	if !hasXDP(t, "a") {
		t.Error("nothing is attached")
	}
	k.Close()
	await(t, "the program is gone", func() bool { return !hasXDP(t, "a") })
	if _, err := os.Stat(o.PinDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	if err := Unload(filepath.Dir(o.PinDir)); err == nil || !strings.Contains(err.Error(), "not on a bpffs") {
		t.Errorf("Unload of another directory: %v", err)
	}
}

// hasXDP reports whether an XDP program stands at an interface.
func hasXDP(t *testing.T, name string) bool {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Xdp.Attached
}

func TestPinDirBelongsToOneProcess(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	k := w.open(o)
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "a running relay uses it") {
		t.Errorf("a second Open: %v", err)
	}
	if err := Unload(o.PinDir); err == nil || !strings.Contains(err.Error(), "a running relay uses it: stop it first") {
		t.Errorf("Unload: %v", err)
	}
	k.Close()
	w.open(o)
}

func TestUnloadLeavesNothing(t *testing.T) {
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
			k.Close()
			if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
				t.Errorf("without a process %d datagrams were lost", lost)
			}
			// An interface that is gone has left its link.
			b, err := netlink.LinkByName("b")
			if err == nil {
				err = netlink.LinkDel(b)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Unload(o.PinDir); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(o.PinDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory is there: %v", err)
			}
			if hasXDP(t, "a") {
				t.Error("an XDP program is left")
			}
			list, err := link.QueryPrograms(link.QueryOptions{Target: interfaceIndex(t, "a"), Attach: ebpf.AttachTCXIngress})
			if err != nil || len(list.Programs) != 0 {
				t.Errorf("tc programs %v, %v are left", list, err)
			}
			if err := Unload(o.PinDir); err != nil {
				t.Errorf("where nothing is: %v", err)
			}
		})
	}
}

// The packages make the directory for a relay that could not make it itself.
func TestUnloadLeavesTheDirectoryOfAnotherUser(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	w.open(o).Close()
	const nobody = 65534
	if err := os.Chown(o.PinDir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Unload(o.PinDir); err != nil {
			t.Fatal(err)
		}
		if left := pinned(t, o.PinDir); len(left) != 0 {
			t.Errorf("%v is pinned", left)
		}
	}
}

func TestOpenThatFailsLeavesNothingPinned(t *testing.T) {
	w := newWorld(t)
	o := w.options(ModeTC, pinDir(t))
	o.Interfaces = []string{"eth7"}
	if _, err := Open(o); err == nil {
		t.Fatal("attached to an interface that is not there")
	}
	if _, err := os.Stat(o.PinDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v is pinned", pinned(t, o.PinDir), err)
	}
	o.Interfaces, o.Capacity = sides[:], o.Capacity+1
	w.open(o)
}
