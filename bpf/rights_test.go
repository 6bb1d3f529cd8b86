//go:build linux

package bpf

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// G12 of the project's goals: an ordinary user needs these capabilities and no
// more.
func TestOpenNeedsNoMoreThanThreeCapabilities(t *testing.T) {
	const nobody = 65534
	for _, mode := range allModes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			dir := pinDir(t)
			for _, d := range []string{dir, filepath.Dir(filepath.Dir(dir))} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(dir, nobody, nobody); err != nil {
				t.Fatal(err)
			}
			p := pairOf(UDP, false, 0)
			kill := w.start(job{mode, dir, p}, &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
				AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
			})
			w.meet(false)
			ends := w.ends(p)
			if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
				t.Errorf("%d datagrams were lost", lost)
			}
			kill()
			if lost := stream(t, ends[0], ends[1], 100, nil); lost != 0 {
				t.Errorf("without the process %d datagrams were lost", lost)
			}
		})
	}
}
