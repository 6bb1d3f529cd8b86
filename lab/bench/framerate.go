package main

import (
	"errors"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/netport/netport/bpf"
)

const (
	// reflectorName is the least that can be between the generator and the sink.
	reflectorName = "bare XDP_TX"
	// lookupName is the least that can be there and know whose packet it is: what of a relay's time is the memory's.
	lookupName = "XDP_TX and lookup"
)

// Where the legs of sessions are when frames are counted: each leg has an address of its own, beyond the near end.
var (
	firstSource = netip.MustParseAddrPort("30.0.0.0:4000")
	firstPeer   = netip.MustParseAddr("40.0.0.0")
)

const peerPort = 9

// crowd is the traffic of many sessions.
func (c *cable) crowd(sessions int) traffic {
	return traffic{
		flows: sessions, source: firstSource, target: netip.AddrPortFrom(c.far.addr, tablePort),
		sourceMask: ^uint32(0), targetPortMask: tablePorts - 1, payload: make([]byte, packetLen),
	}
}

// openCrowded starts the kernel plane at the cable's far end with the crowd's sessions.
func (c *cable) openCrowded(sessions int) (*bpf.Kernel, error) {
	return c.openKernel(bpf.ModeXDP, c.crowd(sessions), func(n int) netip.AddrPort {
		return netip.AddrPortFrom(nth(firstPeer, uint32(n)), peerPort)
	})
}

// frameExperiment compares the kernel plane in XDP mode, with so many sessions and each frame of one picked at random, to
// programs that send every frame back as it came, in frames a second of processor time. Generator, veth pair and sink
// are alike, and take their part of that. Relay and reflectors have a cable each, so that the table is filled but once.
func frameExperiment(sessions int, what string, goal float64) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		relayed, err := w.cable()
		if err != nil {
			return comparison{}, err
		}
		mirrored, err := w.mirror()
		if err != nil {
			return comparison{}, err
		}
		kernel, err := relayed.openCrowded(sessions)
		if err != nil {
			return comparison{}, err
		}
		relay := func() ([]float64, error) {
			return relayed.frameRate(relayed.crowd(sessions), peerPort, w.options.window, nil)
		}
		reflector := func() ([]float64, error) {
			return mirrored.frameRate(mirrored.crowd(sessions), 0, w.options.window, func(g *generator) (link.Link, error) {
				return mirrored.far.attachXDP(g.programs.Reflect)
			})
		}
		lookup := func() ([]float64, error) {
			crowd := mirrored.crowd(sessions)
			return mirrored.frameRate(crowd, 0, w.options.window, func(g *generator) (link.Link, error) {
				if err := g.know(crowd); err != nil {
					return nil, err
				}
				return mirrored.far.attachXDP(g.programs.ReflectKnown)
			})
		}
		return comparison{
			mode: func() string { return bpf.ModeXDP }, end: kernel.Close,
			contenders: []contender{{netportName, relay}, {reflectorName, reflector}, {lookupName, lookup}},
			quantities: []quantity{{
				what: what, unit: rate,
				targets: map[string]target{reflectorName: {atLeast: goal}},
			}},
		}, nil
	}
}

// frameRate returns how many of the traffic's frames come back to the near end's port, 0: to any, in a second of processor
// time. Attach, if there is one, makes the far end send them back.
func (c *cable) frameRate(t traffic, port uint16, window time.Duration, attach func(*generator) (link.Link, error)) (rates []float64, err error) {
	g, err := c.newGenerator(t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.sinkFrames(c.near, port); err != nil {
		return nil, err
	}
	if attach != nil {
		far, err := attach(g)
		if err != nil {
			return nil, err
		}
		defer far.Close()
	}
	arriving, err := g.rate(window)
	return []float64{arriving}, err
}
