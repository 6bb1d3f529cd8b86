package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/cilium/ebpf"
)

// tableMaps are the maps that hold sessions: the flows of both directions, with addresses as long as those of IPv6, and
// the counters.
var tableMaps = []string{"flows", "slots"}

// memoryExperiment measures what the kernel plane takes of the kernel's memory for each session in a full table: the table
// itself, and all of the plane's maps.
func memoryExperiment(sessions int) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		c, err := w.cable()
		if err != nil {
			return comparison{}, err
		}
		measure := func() ([]float64, error) {
			before, err := mapMemory()
			if err != nil {
				return nil, err
			}
			kernel, err := c.openCrowded(sessions)
			if err != nil {
				return nil, err
			}
			after, err := mapMemory()
			if err = errors.Join(err, kernel.Close()); err != nil {
				return nil, err
			}
			var table, all uint64
			for name, bytes := range after {
				all += bytes - before[name]
			}
			for _, name := range tableMaps {
				table += after[name] - before[name]
			}
			return []float64{float64(table) / float64(sessions), float64(all) / float64(sessions)}, nil
		}
		return comparison{
			rounds: 1, contenders: []contender{{netportName, measure}},
			quantities: []quantity{
				{what: "memory of a session", unit: size, own: target{atMost: 400}},
				{what: "  with all maps", unit: size},
			},
		}, nil
	}
}

// mapID is the line of a BPF map's descriptor that has its number.
var mapID = regexp.MustCompile(`(?m)^map_id:\s*(\d+)$`)

// mapMemory is the memory of the BPF maps that this program has open, in bytes, by their names.
func mapMemory() (map[string]uint64, error) {
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil, err
	}
	memory := make(map[string]uint64)
	seen := make(map[uint64]bool)
	for _, name := range files {
		if to, err := os.Readlink(name); err != nil || to != "anon_inode:bpf-map" {
			continue // closed meanwhile, or something else
		}
		text, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(name))
		if err != nil {
			return nil, err
		}
		found := mapID.FindSubmatch(text)
		if found == nil {
			return nil, fmt.Errorf("read the number of a BPF map: there is none in %q", text)
		}
		id, err := strconv.ParseUint(string(found[1]), 10, 32)
		if err != nil {
			return nil, err
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		if err := addMemory(memory, ebpf.MapID(id)); err != nil {
			return nil, err
		}
	}
	return memory, nil
}

func addMemory(memory map[string]uint64, id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return err
	}
	bytes, ok := info.Memlock()
	if !ok {
		return fmt.Errorf("the kernel does not say how much memory BPF map %s takes", info.Name)
	}
	memory[info.Name] += bytes
	return nil
}
