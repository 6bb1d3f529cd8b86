package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/netport/netport/bpf"
)

//go:generate go tool bpf2go frames frames.bpf.c -- -O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// traffic is UDP datagrams over IPv4 of many flows. Flow n has n added to what the first has, as far as the masks let it
// through.
type traffic struct {
	flows          int
	source, target netip.AddrPort // of the first flow

	sourceMask                     uint32
	sourcePortMask, targetPortMask uint16

	payload []byte // even in length
}

// flow returns the addresses of one flow.
func (t traffic) flow(n int) (source, target netip.AddrPort) {
	source = netip.AddrPortFrom(nth(t.source.Addr(), uint32(n)&t.sourceMask), t.source.Port()+uint16(n)&t.sourcePortMask)
	return source, netip.AddrPortFrom(t.target.Addr(), t.target.Port()+uint16(n)&t.targetPortMask)
}

const (
	headersLen   = 14 + 20 + udpHeaderLen // Ethernet, IPv4, UDP
	udpHeaderLen = 8
	framesBatch  = 128 // frames that are sent at once: half of what a veth device's ring takes
)

// frame is a frame of the traffic, but for what the generator writes into each.
func (t traffic) frame() []byte {
	b := make([]byte, headersLen, headersLen+len(t.payload))
	binary.BigEndian.PutUint16(b[12:], 0x0800) // IPv4
	b[14] = 0x45                               // with a header of 20 bytes
	binary.BigEndian.PutUint16(b[16:], uint16(headersLen-14+len(t.payload)))
	b[23] = 17 // UDP
	binary.BigEndian.PutUint16(b[38:], t.length())
	return append(b, t.payload...)
}

// length is what a datagram's UDP header says.
func (t traffic) length() uint16 { return uint16(udpHeaderLen + len(t.payload)) }

func (t traffic) payloadSum() (sum uint32) {
	for word := range slices.Chunk(t.payload, 2) {
		sum += uint32(binary.BigEndian.Uint16(word))
	}
	return sum
}

// generator sends a traffic's frames from the cable's near end, and has the sinks that count them.
type generator struct {
	cable    *cable
	programs framesObjects
	frame    []byte
	sink     link.Link // that is attached; nil if none
}

func (c *cable) newGenerator(t traffic) (*generator, error) {
	spec, err := loadFrames()
	if err != nil {
		return nil, err
	}
	var v framesVariableSpecs
	if err := spec.Assign(&v); err != nil {
		return nil, err
	}
	var macs [12]byte
	copy(macs[:], c.far.device.HardwareAddr)
	copy(macs[6:], c.near.device.HardwareAddr)
	err = errors.Join(
		v.Macs.Set(macs), v.Flows.Set(uint32(t.flows)),
		v.Source.Set(number(t.source.Addr())), v.SourceMask.Set(t.sourceMask), v.Target.Set(number(t.target.Addr())),
		v.SourcePort.Set(t.source.Port()), v.SourcePortMask.Set(t.sourcePortMask),
		v.TargetPort.Set(t.target.Port()), v.TargetPortMask.Set(t.targetPortMask),
		v.Length.Set(t.length()), v.PayloadSum.Set(t.payloadSum()))
	if err != nil {
		return nil, err
	}
	spec.Maps["known"].MaxEntries = uint32(2 * t.flows) // as the kernel plane's, which has both directions
	g := &generator{cable: c, frame: t.frame()}
	return g, spec.LoadAndAssign(&g.programs, nil)
}

// know makes the program reflect_known know the traffic's flows.
func (g *generator) know(t traffic) error {
	keys, values := make([][24]byte, t.flows), make([][36]byte, t.flows)
	for n := range keys {
		source, target := t.flow(n)
		addr := source.Addr().As16()
		key := append(keys[n][:0], addr[:]...)
		key = binary.BigEndian.AppendUint16(key, source.Port())
		key = binary.BigEndian.AppendUint16(key, target.Port())
		binary.NativeEndian.PutUint32(keys[n][len(key):], uint32(bpf.UDP))
	}
	_, err := g.programs.Known.BatchUpdate(keys, values, nil)
	return err
}

// number is an IPv4 address as a number.
func number(addr netip.Addr) uint32 {
	b := addr.As4()
	return binary.BigEndian.Uint32(b[:])
}

// close takes the generator's sink away, too.
func (g *generator) close() error { return errors.Join(g.removeSink(), g.programs.Close()) }

// frameContext is the kernel's struct xdp_md.
type frameContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES.
const liveFrames = 1 << 1

// send sends so many frames as fast as it can. It must be called in the near end's network namespace, and returns when
// they have come as far as they come: this processor does all of it.
func (g *generator) send(count uint32) error {
	_, err := g.programs.Generate.Run(&ebpf.RunOptions{
		Data:    g.frame,
		Context: frameContext{DataEnd: uint32(len(g.frame)), IngressIfindex: uint32(g.cable.near.device.Index)},
		Flags:   liveFrames, Repeat: count, BatchSize: framesBatch,
	})
	return err
}

// attachXDP attaches a program to the end's device.
func (e cableEnd) attachXDP(program *ebpf.Program) (l link.Link, err error) {
	e.Do(func() {
		l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: e.device.Index, Flags: link.XDPDriverMode})
	})
	return l, err
}

// attachTC attaches a program to what comes in by the end's device.
func (e cableEnd) attachTC(program *ebpf.Program) (l link.Link, err error) {
	e.Do(func() {
		l, err = link.AttachTCX(link.TCXOptions{Program: program, Interface: e.device.Index, Attach: ebpf.AttachTCXIngress})
	})
	return l, err
}

// sinkFrames and sinkPackets attach a sink at one end of the cable, for datagrams to the port, 0: all. The one takes frames
// before the kernel makes packets of them, the other takes packets.
func (g *generator) sinkFrames(at cableEnd, port uint16) error {
	return g.attachSink(port, func() (link.Link, error) { return at.attachXDP(g.programs.SinkFrames) })
}

func (g *generator) sinkPackets(at cableEnd, port uint16) error {
	return g.attachSink(port, func() (link.Link, error) { return at.attachTC(g.programs.SinkPackets) })
}

func (g *generator) attachSink(port uint16, attach func() (link.Link, error)) error {
	err := errors.Join(g.removeSink(), g.programs.SinkPort.Set(port))
	if err != nil {
		return err
	}
	if g.sink, err = attach(); err != nil {
		return fmt.Errorf("attach a sink: %w", err)
	}
	return nil
}

func (g *generator) removeSink() error {
	if g.sink == nil {
		return nil
	}
	err := g.sink.Close()
	g.sink = nil
	return err
}

// received is how many frames or packets the sinks have counted so far.
func (g *generator) received() (uint64, error) {
	var each []uint64 // by processor
	if err := g.programs.Received.Lookup(uint32(0), &each); err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range each {
		sum += n
	}
	return sum, nil
}

// tried is how many frames are sent to find out how many to send.
const tried = 1 << 20

// rate is how many frames arrive at the sink in a second of processor time, if as many are sent as can be. One processor
// does all of it, unless ksoftirqd takes a part, which counts as well; so on a machine with nothing else to do it is the
// rate by the clock, and on any other it does not depend on who else is busy. The frames are sent in one go, of about the
// window.
func (g *generator) rate(window time.Duration) (float64, error) {
	clock, err := newCPU()
	if err != nil {
		return 0, err
	}
	var arriving float64
	g.cable.near.Do(func() {
		count := uint32(tried)
		var took time.Duration
		if _, took, err = g.timed(count, clock); err != nil {
			return
		}
		count = uint32(float64(count) * window.Seconds() / took.Seconds())
		var arrived uint64
		arrived, took, err = g.timed(count, clock)
		arriving = float64(arrived) / took.Seconds()
	})
	if err == nil && arriving == 0 {
		err = errors.New("no frame arrives")
	}
	return arriving, err
}

// timed sends so many frames and returns how many arrived and what processor time it took.
func (g *generator) timed(count uint32, clock cpu) (arrived uint64, took time.Duration, err error) {
	first, err := g.received()
	if err != nil {
		return 0, 0, err
	}
	before, err := clock.spent()
	if err != nil {
		return 0, 0, err
	}
	if err := g.send(count); err != nil {
		return 0, 0, err
	}
	after, err := clock.spent()
	if err != nil {
		return 0, 0, err
	}
	last, err := g.received()
	return last - first, after - before, err
}
