package faults

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/daemon"
	"github.com/netport/netport/lab/traffic"
)

// F37: two portals of 32 MB each, with 200 applications that do not read what comes for them and 10 that do, live, stay
// below four fifths of that, and lose nothing of what is read. Connections for which there is no memory are refused, with
// this reason.
func TestPortalsOfLittleMemoryOutliveSlowReaders(t *testing.T) {
	const limit, readers, fast = 32 << 20, 200, 10
	w := newWorld(t)
	w.allow(w.echoes()[0], w.other())
	groups := make(map[*daemon.Portal]group)
	for _, p := range []*daemon.Portal{w.factory, w.laptop} {
		p.Stop()
		g := newGroup(t, "memory")
		g.set(limit, "memory.limit_in_bytes", "memory.max")
		g.launch(p.Daemon)
		groups[p] = g
	}
	w.waitUp("tcp")
	w.waitUp("other")

	var pairs []traffic.Pair
	ln := w.plc.Listen(echoPort)
	for range fast {
		p := w.connect(entryPort, ln)
		pairs = append(pairs, traffic.Pair{Client: p.client, Service: p.service})
	}
	running := traffic.Start(t, traffic.Load{Pairs: pairs, Rate: 2e6})
	pour(t, w.plc.Listen(otherPort))
	most := make(map[*daemon.Portal]int64)
	look := func() (all int64) {
		for p := range groups {
			now := p.Memory()
			most[p] = max(most[p], now)
			all += now
		}
		return all
	}
	for range readers {
		if conn, err := w.laptop.Host().DialContext(t.Context(), "tcp", local(otherEntry)); err == nil { // or it was refused already
			t.Cleanup(func() { conn.Close() })
		}
		look()
	}
	var last []int64 // what both took, each time they were looked at
	await.Until(t, "stalled", func() error {
		await.Passing(t, time.Second/2)
		if last = append(last, look()); len(last) > 10 {
			last = last[1:]
		}
		if grown := slices.Max(last) - last[0]; len(last) < 10 || grown > 1<<20 {
			return fmt.Errorf("they have grown by %d bytes", grown)
		}
		return nil
	})
	for p, g := range groups {
		t.Logf("%s took %d KiB at most; its group %s", p.Name(), most[p]>>10, g.read("memory.max_usage_in_bytes", "memory.peak"))
		if most[p] > limit/10*8 {
			t.Errorf("%s took %d bytes of %d", p.Name(), most[p], limit)
		}
		if kills := g.count("oom_kill ", "memory.oom_control", "memory.events"); kills > 0 {
			t.Errorf("%s was killed", p.Name())
		}
	}
	wantLogged(t, w.laptop.Daemon, 0, "reason=busy", "too little memory")
	got := running.End()
	t.Log(got)
	if got.Err != nil {
		t.Error(got.Err)
	}
}

// pour sends every connection of a service more than it takes, until it ends.
func pour(t *testing.T, ln net.Listener) {
	go func() {
		block := make([]byte, 64<<10)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // closed with the test
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				for err := error(nil); err == nil; _, err = conn.Write(block) {
				}
			}()
		}
	}()
}
