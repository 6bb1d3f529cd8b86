package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	stripped "github.com/netport/netport/lab/size"
)

// carried is how much is sent through a portal before its memory is looked at again.
const carried = 1e9

// settled is for how long a program's memory must not have grown or shrunk: longer than the 2 minutes within which Go's
// runtime collects garbage in any case, and gives memory back.
const settled = 130 * time.Second

// residentExperiment measures the memory of a portal that nobody uses, and after a lot has gone through it, at the side
// where connections begin.
func residentExperiment(w *world) (comparison, error) {
	via, err := w.netport()
	if err != nil {
		return comparison{}, err
	}
	measure := func() ([]float64, error) {
		w.entry.Restart() // no tunnel is left
		w.waitUp()
		idle, err := w.settledMemory(w.entry.Process().PID())
		if err != nil {
			return nil, err
		}
		for before := w.services.received.Load(); w.services.received.Load()-before < carried; {
			if _, err := w.goodput(via.addr(sinkPort), 1); err != nil {
				return nil, err
			}
		}
		busy, err := memoryOf(w.entry.Process().PID())
		return []float64{float64(idle.whole), float64(idle.own), float64(busy.whole), float64(busy.own)}, err
	}
	return comparison{
		mode: w.netportMode, rounds: 1, contenders: []contender{{netportName, measure}},
		quantities: []quantity{
			{what: "idle portal's memory", unit: size, own: target{atMost: 12e6}},
			{what: "  its program apart", unit: size},
			{what: "  after 1 GB", unit: size, own: target{atMost: 24e6}},
			{what: "  its program apart", unit: size},
		},
	}, nil
}

// resident is what a process has in memory, in bytes: all, and what is no page of its program's file.
type resident struct{ whole, own int64 }

func memoryOf(pid int) (resident, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return resident{}, err
	}
	var r resident
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); (name == "VmRSS" || name == "RssAnon") && len(fields) == 2 {
			kb, err := strconv.ParseInt(fields[0], 10, 64)
			if err != nil {
				return resident{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
			}
			if name == "VmRSS" {
				r.whole = kb << 10
			} else {
				r.own = kb << 10
			}
		}
	}
	if r.whole == 0 || r.own == 0 {
		return resident{}, fmt.Errorf("the kernel does not say how much memory process %d has", pid)
	}
	return r, nil
}

// settledMemory waits until the memory of a process stays within a hundredth, and returns it.
func (w *world) settledMemory(pid int) (resident, error) {
	calm := settled
	if w.options.quick {
		calm /= 10
	}
	first, err := memoryOf(pid)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for begin, late := time.Now(), time.After(4*settled); err == nil && time.Since(begin) < calm; {
		select {
		case <-tick.C:
		case <-late:
			return resident{}, errors.New("its memory does not settle")
		}
		var now resident
		if now, err = memoryOf(pid); max(now.whole, first.whole)-min(now.whole, first.whole) > first.whole/100 {
			begin, first = time.Now(), now
		}
	}
	if err != nil {
		return resident{}, err
	}
	return memoryOf(pid)
}

// sizeExperiment builds the portal for the machines of goal S1. It needs the go command and the tree that it is run in.
func sizeExperiment(*world) (comparison, error) {
	measure := func() ([]float64, error) {
		var all []float64
		for _, arch := range stripped.Architectures {
			bytes, err := stripped.Stripped(arch)
			if err != nil {
				return nil, err
			}
			all = append(all, float64(bytes))
		}
		return all, nil
	}
	c := comparison{rounds: 1, contenders: []contender{{netportName, measure}}}
	for _, arch := range stripped.Architectures {
		c.quantities = append(c.quantities, quantity{what: "portal, linux/" + arch, unit: size, own: target{atMost: float64(stripped.Goal)}})
	}
	return c, nil
}
