package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/netport/netport/bpf"
)

// How relays are loaded to see what a packet costs them: well below what each can carry, so that all carry the same.
const (
	offeredRate  = 40_000 // packets a second
	offeredFlows = 100
	offeredPort  = 30000 // of the first flow, at the cable's near end
	costSink     = 39000 // where the relays send to, at the near end
)

// load is a way to offer packets to a relay at a cable's far end, and to count what comes of it.
type load struct {
	generator *generator
	// send offers packets at offeredRate for the window and returns how many.
	send func(window time.Duration) (sent int, err error)
	sink func(at cableEnd, port uint16) error // takes the generator's sink there
}

// frameLoad sends frames, and counts frames.
func frameLoad(g *generator) load { return load{generator: g, send: g.pace, sink: g.sinkFrames} }

// socketLoad sends datagrams by sockets of the near end, and counts packets.
func socketLoad(g *generator, flows []flow) load {
	return load{generator: g, send: func(window time.Duration) (int, error) { return pace(flows, window) }, sink: g.sinkPackets}
}

// cost returns the processor time that a relay takes for a packet, in s: what everything takes while packets go through
// it, from the near end and back there, less what it takes if a sink at the far end swallows the same packets. What lies
// between is all that happens on the relay's machine, from its device to its device, and the way back over a veth
// pair. Start makes the far end a relay, which has the processes, until it is closed.
func (c *cable) cost(l load, window time.Duration, start func() (io.Closer, error), processes ...int) (float64, error) {
	first, err := c.spendWithout(l, window/2)
	if err != nil {
		return 0, err
	}
	if err := l.sink(c.near, costSink); err != nil {
		return 0, err
	}
	relay, err := start()
	if err != nil {
		return 0, err
	}
	with, err := l.spend(window, processes...)
	if err = errors.Join(err, relay.Close()); err != nil {
		return 0, err
	}
	last, err := c.spendWithout(l, window/2)
	return with - (first+last)/2, err
}

// spendWithout is what the packets take that get no farther than the far end.
func (c *cable) spendWithout(l load, window time.Duration) (float64, error) {
	if err := l.sink(c.far, 0); err != nil {
		return 0, err
	}
	spent, err := l.spend(window)
	if err != nil {
		return 0, fmt.Errorf("without a relay: %w", err)
	}
	return spent, nil
}

// spend offers packets for the window and returns the processor time that each of those took that arrived, in s.
func (l load) spend(window time.Duration, processes ...int) (float64, error) {
	clock, err := newCPU(processes...)
	if err != nil {
		return 0, err
	}
	if _, err := l.send(warmUp); err != nil {
		return 0, err
	}
	first, err := l.generator.received()
	if err != nil {
		return 0, err
	}
	before, err := clock.spent()
	if err != nil {
		return 0, err
	}
	sent, err := l.send(window)
	if err != nil {
		return 0, err
	}
	after, err := clock.spent()
	if err != nil {
		return 0, err
	}
	last, err := l.generator.received()
	if err != nil {
		return 0, err
	}
	arrived := int(last - first)
	if arrived < sent*9/10 {
		return 0, fmt.Errorf("of %d packets %d arrive: a relay that loses them does not do the same work", sent, arrived)
	}
	return (after - before).Seconds() / float64(arrived), nil
}

// pace offers frames. They go out in bursts, since the kernel takes some 20 ms for each to set up and to end.
func (g *generator) pace(window time.Duration) (sent int, err error) {
	g.cable.near.Do(func() {
		sent, err = everySoOften(window, func(due int) error { return g.send(uint32(due)) })
	})
	return sent, err
}

// pace offers datagrams, over all flows in turn.
func pace(flows []flow, window time.Duration) (int, error) {
	packets := make([][]byte, len(flows))
	for i, f := range flows {
		packets[i] = append(f.header[:len(f.header):len(f.header)], make([]byte, packetLen)...)
	}
	next := 0
	return everySoOften(window, func(due int) error {
		for range due {
			if _, err := flows[next].conn.WriteToUDPAddrPort(packets[next], flows[next].to); err != nil {
				return err
			}
			next = (next + 1) % len(flows)
		}
		return nil
	})
}

// everySoOften has what is due at offeredRate sent, each millisecond or as soon as send has returned.
func everySoOften(window time.Duration, send func(due int) error) (sent int, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		passed := time.Since(start)
		if passed > window {
			return sent, nil
		}
		due := int(passed.Seconds()*offeredRate) - sent
		if due == 0 {
			continue
		}
		if err := send(due); err != nil {
			return sent, err
		}
		sent += due
	}
}

// offered is the traffic of a load to a relay's port, with something before each payload.
func (c *cable) offered(to netip.AddrPort, header []byte) traffic {
	return traffic{
		flows: offeredFlows, source: netip.AddrPortFrom(c.near.addr, offeredPort), target: to,
		sourcePortMask: ^uint16(0), payload: append(header[:len(header):len(header)], make([]byte, packetLen)...),
	}
}

// turnRelay is coturn at a cable's far end.
type turnRelay struct {
	process int
	flows   []flow // from the near end's sockets to costSink there
}

func (w *world) startCabledTURN() (turnRelay, error) {
	c, err := w.cable()
	if err != nil {
		return turnRelay{}, err
	}
	turn, process := startTURN(w.t, c.host)
	r := turnRelay{process: process.PID()}
	for n := range offeredFlows {
		f := flow{conn: c.near.ListenUDP(uint16(offeredPort + n)), to: turn}
		if _, err := allocate(f.conn, turn); err != nil {
			return turnRelay{}, err
		}
		if f.header, err = bindChannel(f.conn, turn, netip.AddrPortFrom(c.near.addr, costSink)); err != nil {
			return turnRelay{}, err
		}
		r.flows = append(r.flows, f)
	}
	return r, nil
}

// turnCost measures coturn with frames or with sockets.
func (w *world) turnCost(frames bool) ([]float64, error) {
	c, err := w.cable()
	if err != nil {
		return nil, err
	}
	turn, err := w.cabledTURN()
	if err != nil {
		return nil, err
	}
	g, err := c.newGenerator(c.offered(turn.flows[0].to, turn.flows[0].header))
	if err != nil {
		return nil, err
	}
	l, start := socketLoad(g, turn.flows), startNothing
	if frames {
		l, start = frameLoad(g), func() (io.Closer, error) { return c.far.attachXDP(g.programs.Pass) }
	}
	figure, err := c.cost(l, w.options.window, start, turn.process)
	return []float64{figure}, errors.Join(err, g.close())
}

// startNothing starts a relay that runs already.
func startNothing() (io.Closer, error) { return io.NopCloser(nil), nil }

// kernelCost measures the kernel plane: with frames in XDP mode, with sockets in the mode that a veth device gets.
func (w *world) kernelCost(frames bool) ([]float64, error) {
	c, err := w.cable()
	if err != nil {
		return nil, err
	}
	turn, err := w.cabledTURN()
	if err != nil {
		return nil, err
	}
	t := c.offered(netip.AddrPortFrom(c.far.addr, tablePort), nil)
	t.targetPortMask = ^uint16(0)
	g, err := c.newGenerator(t)
	if err != nil {
		return nil, err
	}
	mode, l := bpf.ModeTC, socketLoad(g, t.sentBy(turn.flows))
	if frames {
		mode, l = bpf.ModeXDP, frameLoad(g)
	}
	start := func() (io.Closer, error) {
		return c.openKernel(mode, t, func(int) netip.AddrPort { return netip.AddrPortFrom(c.near.addr, costSink) })
	}
	figure, err := c.cost(l, w.options.window, start)
	return []float64{figure}, errors.Join(err, g.close())
}

// sentBy sends the traffic by the sockets of other flows.
func (t traffic) sentBy(flows []flow) []flow {
	var own []flow
	for n := range t.flows {
		_, to := t.flow(n)
		own = append(own, flow{conn: flows[n].conn, to: to})
	}
	return own
}

// costExperiment compares what a packet costs the kernel plane and coturn.
func costExperiment(frames bool, goal float64) func(*world) (comparison, error) {
	return func(w *world) (comparison, error) {
		what, mode := "CPU a packet, sockets", bpf.ModeTC
		if frames {
			what, mode = "CPU a packet, frames", bpf.ModeXDP
		}
		return comparison{
			mode: func() string { return mode },
			contenders: []contender{
				{netportName, func() ([]float64, error) { return w.kernelCost(frames) }},
				{turnName, func() ([]float64, error) { return w.turnCost(frames) }},
			},
			quantities: []quantity{{what: what, unit: seconds, targets: map[string]target{turnName: {atMost: goal}}}},
		}, nil
	}
}
