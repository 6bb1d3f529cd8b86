//go:build linux

package bpf

import (
	"testing"
)

func TestOpenAttachesInEveryMode(t *testing.T) {
	for _, mode := range []string{ModeXDP, ModeTC, ModeGeneric, ModeAuto} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			dir := pinDir(t)
			k := w.open(w.options(mode, dir))
			want := mode
			if mode == ModeAuto {
				want = ModeTC // veth has no hardware
			}
			if got := k.Name(); got != want {
				t.Errorf("the plane is %q, want %q", got, want)
			}
			t.Log(k.Interfaces(), pinned(t, dir))
		})
	}
}
