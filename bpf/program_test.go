//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The ports of the tests' relay.
const (
	sessionFirst, sessionLast = 20000, 32767
	packetFirst, packetLast   = 28672, 32767
)

// outcome is what became of a packet, in the words that both hooks share.
type outcome uint8

const (
	passed outcome = iota
	dropped
	sent
)

func (o outcome) String() string { return [...]string{"passed", "dropped", "sent"}[o] }

// hook runs one program for one frame.
type hook struct {
	name     string
	program  func(*relayObjects) *ebpf.Program
	context  func(frame []byte, ifindex int) any
	outcomes map[uint32]outcome
}

// xdpContext is the part of struct xdp_md that a caller may set.
type xdpContext struct {
	Data, DataEnd, DataMeta      uint32
	IngressIfindex, RxQueueIndex uint32
	EgressIfindex                uint32
}

// skbContext is struct __sk_buff.
type skbContext struct {
	_       [40]byte
	Ifindex uint32
	_       [120]byte
	GSOSegs uint32
	_       [8]byte
	GSOSize uint32
	_       [12]byte
}

// A run of tc with this flag starts with the sum over the packet that a network card
// may leave with it, and fails if the program leaves a wrong one.
const keepsSum = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE

// knowsSum reports whether the kernel knows the flag (Linux 6.16, and some before).
var knowsSum = sync.OnceValue(func() bool {
	o, err := loadedOnce()
	if err != nil {
		return false
	}
	_, err = o.RelayTc.Run(&ebpf.RunOptions{Data: make([]byte, 64), Flags: keepsSum})
	return err == nil
})

// hasTail reports whether a frame is longer than the packet in it. The kernel gives
// up the sum of one that is cut.
func hasTail(frame []byte) bool {
	switch {
	case len(frame) < ethernetHeader+6:
		return false
	case frame[ethernetHeader]>>4 == 4:
		return ethernetHeader+int(binary.BigEndian.Uint16(frame[ethernetHeader+2:])) < len(frame)
	}
	return ethernetHeader+40+int(binary.BigEndian.Uint16(frame[ethernetHeader+4:])) < len(frame)
}

var hooks = []hook{
	{
		name:    "xdp",
		program: func(o *relayObjects) *ebpf.Program { return o.RelayXdp },
		context: func(frame []byte, ifindex int) any {
			return xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(ifindex)}
		},
		outcomes: map[uint32]outcome{0: dropped, 1: dropped, 2: passed, 3: sent, 4: sent}, // XDP_*
	},
	{
		name:    "tc",
		program: func(o *relayObjects) *ebpf.Program { return o.RelayTc },
		context: func(_ []byte, ifindex int) any {
			return skbContext{Ifindex: uint32(ifindex)}
		},
		outcomes: map[uint32]outcome{^uint32(0): passed, 2: dropped, 7: sent}, // TC_ACT_*
	},
}

// loadedOnce has both programs, loaded once for all tests, which takes a second.
var loadedOnce = sync.OnceValues(func() (*relayObjects, error) {
	spec, err := loadRelay()
	if err != nil {
		return nil, err
	}
	variables := map[string]uint16{
		relayVarSessionFirst: sessionFirst, relayVarSessionLast: sessionLast,
		relayVarPacketFirst: packetFirst, relayVarPacketLast: packetLast,
	}
	for name, value := range variables {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, err
		}
	}
	var o relayObjects
	if err := spec.LoadAndAssign(&o, nil); err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("%+v", refused)
		}
		return nil, err
	}
	return &o, nil
})

// rig is both programs with empty tables, between the interfaces of a world.
type rig struct {
	*world
	*relayObjects
	events  *ringbuf.Reader
	devices [2]netlink.Link // the relay's interfaces
	own     []netip.Addr    // of the relay by number; 0 is none
	entries []relayFlowKey
	seats   []relayAdmission
}

// newRig empties the tables and sets the relay's addresses. All traffic comes and
// goes by its interface a, unless a test says otherwise.
func newRig(t testing.TB) *rig {
	t.Helper()
	w := newWorld(t)
	o, err := loadedOnce()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{world: w, relayObjects: o, own: []netip.Addr{{}, relayAddr(0, false), relayAddr(0, true), relayAddr(1, false), relayAddr(1, true)}}
	if r.events, err = ringbuf.NewReader(o.Events); err != nil {
		t.Fatal(err)
	}
	r.drain()
	for i, name := range sides {
		r.devices[i] = r.named(name, mac{0x02, 0, 0, 0, 0, byte(i)})
		known := relayInterface{Known: 1}
		copy(known.Mac[:], r.devices[i].Attrs().HardwareAddr)
		r.put(o.Interfaces, uint32(r.devices[i].Attrs().Index), known)
	}
	for number, a := range r.own[1:] {
		r.put(o.OwnList, uint32(number+1), relayAddress{Addr: rawAddr(a)})
		r.put(o.OwnIndex, relayAddress{Addr: rawAddr(a)}, uint8(number+1))
	}
	for reason := range uint32(relayDropReasonDROP_REASONS) {
		r.put(o.Drops, reason, make([]uint64, ebpf.MustPossibleCPU()))
	}
	t.Cleanup(r.clear)
	return r
}

// named gives an interface an address that is the same in every run, so that the
// inputs of fuzz tests stay what they are.
func (r *rig) named(name string, address mac) netlink.Link {
	r.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetHardwareAddr(l, address[:])
	}
	if err == nil {
		l, err = netlink.LinkByName(name)
	}
	if err != nil {
		r.Fatal(err)
	}
	return l
}

func (r *rig) put(m *ebpf.Map, key, value any) {
	r.Helper()
	if err := m.Put(key, value); err != nil {
		r.Fatalf("%v: %v", m, err)
	}
}

// clearFlows empties the table of flows.
func (r *rig) clearFlows() {
	r.Helper()
	for _, key := range r.entries {
		if err := r.Flows.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			r.Error(err)
		}
	}
	r.entries = nil
}

// clear empties what a test has filled.
func (r *rig) clear() {
	r.clearFlows()
	for _, seat := range r.seats {
		if err := r.Admitted.Delete(seat); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			r.Error(err)
		}
	}
	for i := range r.devices {
		r.put(r.Interfaces, uint32(r.devices[i].Attrs().Index), relayInterface{})
	}
	if err := r.events.Close(); err != nil {
		r.Error(err)
	}
}

// device returns the MAC address of one of the relay's interfaces.
func (r *rig) mac(i int) (m mac) {
	copy(m[:], r.devices[i].Attrs().HardwareAddr)
	return m
}

// gateway is what stands on the other side of the relay's interface.
var gateway = mac{0x02, 0, 0, 0, 0, 0xfe}

// peers are two legs that the relay joins in slot 0.
type peers struct {
	*rig
	protocol Protocol
	remote   [2]netip.AddrPort
	local    [2]netip.AddrPort
	slot     uint32
}

// join puts a pair into the tables, behind one gateway on interface a. The pair
// lives for an hour and has no limits.
func (r *rig) join(protocol Protocol, v6 bool) *peers {
	r.Helper()
	first, own := uint16(21000), 1
	if protocol == TCP {
		first = packetFirst + 8
	}
	remote := [2]netip.AddrPort{netip.MustParseAddrPort("198.51.100.7:40001"), netip.MustParseAddrPort("203.0.113.9:50002")}
	if v6 {
		own = 2
		remote = [2]netip.AddrPort{netip.MustParseAddrPort("[2001:db8:a::7]:40001"), netip.MustParseAddrPort("[2001:db8:b::9]:50002")}
	}
	p := &peers{rig: r, protocol: protocol, remote: remote}
	for i := range p.local {
		p.local[i] = netip.AddrPortFrom(r.own[own], first+uint16(i)*10)
	}
	p.setSlot(relayDirection{Lifetime: 3600})
	p.install(nil)
	return p
}

// setSlot sets both directions, which were seen now.
func (p *peers) setSlot(d relayDirection) {
	p.Helper()
	d.Seen += monotonic(p)
	p.put(p.Slots, p.slot, relaySlot{From: [2]relayDirection{d, d}})
}

// install puts both directions into the table of flows, changed by f.
func (p *peers) install(f func(from int, flow *relayFlow)) {
	p.Helper()
	for from := range 2 {
		to := 1 - from
		flow := relayFlow{
			Peer: rawAddr(p.remote[to].Addr()), PeerPort: toNetwork(p.remote[to].Port()), PeerLocal: toNetwork(p.local[to].Port()),
			Slot: p.slot, Ifindex: uint32(p.devices[0].Attrs().Index), Direction: uint8(from),
			Own:     uint8(slices.Index(p.own, p.local[from].Addr())),
			PeerOwn: uint8(slices.Index(p.own, p.local[to].Addr())),
			Flags:   flowBack,
		}
		if f != nil {
			f(from, &flow)
		}
		p.put(p.Flows, p.key(from), flow)
		p.entries = append(p.entries, p.key(from))
	}
}

func (p *peers) key(from int) relayFlowKey {
	return relayFlowKey{
		Addr: rawAddr(p.remote[from].Addr()), Port: toNetwork(p.remote[from].Port()),
		Local: toNetwork(p.local[from].Port()), Protocol: uint8(p.protocol),
	}
}

func monotonic(t testing.TB) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

// arriving is a segment of a leg as the relay gets it, and leaving the same as
// the other leg gets it.
func (p *peers) arriving(from int, payload []byte) segment {
	return segment{
		toMAC: p.mac(0), fromMAC: gateway, from: p.remote[from], to: p.local[from],
		protocol: p.protocol, ttl: 57, ecn: 2, payload: payload, flags: flagACK | flagPSH,
	}
}

func (p *peers) leaving(arrived segment) segment {
	from := 0
	if arrived.from == p.remote[1] {
		from = 1
	}
	s := arrived
	s.toMAC, s.fromMAC = arrived.fromMAC, arrived.toMAC
	s.from, s.to = p.local[1-from], p.remote[1-from]
	s.ttl--
	return s
}

// admit lets an address open connections to a block of packet ports.
func (r *rig) admit(a netip.Addr, port uint16) {
	r.Helper()
	seat := relayAdmission{Addr: rawAddr(a), Block: port &^ 7}
	r.put(r.Admitted, seat, uint8(1))
	r.seats = append(r.seats, seat)
}

// result is what one hook did with a frame.
type result struct {
	outcome outcome
	verdict uint32
	frame   []byte // as it is afterwards
}

// run gives a frame to a hook, as if it came by an interface.
func (r *rig) run(h hook, frame []byte, device int) result {
	r.Helper()
	got, err := r.try(h, frame, h.context(frame, r.devices[device].Attrs().Index))
	if err != nil {
		r.Fatalf("%s: run with %x: %v", h.name, frame, err)
	}
	return got
}

func (r *rig) try(h hook, frame []byte, context any) (result, error) {
	options := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: context}
	if h.name == "tc" && !hasTail(frame) && knowsSum() {
		options.Flags = keepsSum
	}
	verdict, err := h.program(r.relayObjects).Run(&options)
	if err != nil {
		return result{}, err
	}
	o, ok := h.outcomes[verdict]
	if !ok {
		return result{}, fmt.Errorf("verdict %d", int32(verdict))
	}
	return result{o, verdict, options.DataOut}, nil
}

// counts are the drops by reason, without those that are 0.
type counts map[relayDropReason]uint64

// dropsOf reads and resets the counters.
func (r *rig) dropsOf() counts {
	r.Helper()
	c := counts{}
	for reason := range uint32(relayDropReasonDROP_REASONS) {
		var each []uint64
		if err := r.Drops.Lookup(reason, &each); err != nil {
			r.Fatal(err)
		}
		sum := uint64(0)
		for _, n := range each {
			sum += n
		}
		if sum > 0 {
			c[relayDropReason(reason)] = sum
			r.put(r.Drops, reason, make([]uint64, len(each)))
		}
	}
	return c
}

// told is an event without the packet's own bytes.
type told struct {
	kind   relayEventKind
	reason relayEventReason
	mtu    uint16
	packet string
	device int
}

func (e told) String() string {
	return fmt.Sprintf("kind %d reason %d mtu %d from %d: %x", e.kind, e.reason, e.mtu, e.device, e.packet)
}

// drain reads the events that are there.
func (r *rig) drain() (list []told) {
	r.Helper()
	r.events.SetDeadline(time.Unix(1, 0))
	for {
		record, err := r.events.Read()
		if err != nil {
			return list
		}
		b := record.RawSample
		length := int(binary.NativeEndian.Uint32(b[4:]))
		list = append(list, told{
			device: int(binary.NativeEndian.Uint32(b[0:])), kind: relayEventKind(b[8]), reason: relayEventReason(b[9]),
			mtu: binary.NativeEndian.Uint16(b[10:]), packet: string(b[12 : 12+length]),
		})
	}
}

// slotOf returns both directions of a pair.
func (p *peers) slotOf() relaySlot {
	p.Helper()
	var s relaySlot
	if err := p.Slots.Lookup(p.slot, &s); err != nil {
		p.Fatal(err)
	}
	return s
}

// both runs a subtest for each hook, with a rig of its own.
func both(t *testing.T, f func(r *rig, h hook)) {
	for _, h := range hooks {
		t.Run(h.name, func(t *testing.T) { f(newRig(t), h) })
	}
}

// wants runs a frame and compares everything there is to see of it: the outcome,
// the bytes (nil: as they were), the drop counters and the events.
func (r *rig) wants(h hook, name string, frame []byte, o outcome, after []byte, drops counts, events ...told) {
	r.Helper()
	got := r.run(h, frame, 0)
	if got.outcome != o {
		r.Errorf("%s: %s, want %s", name, got.outcome, o)
	}
	if after == nil {
		after = frame
	}
	if !bytes.Equal(got.frame, after) {
		r.Errorf("%s: the frame is\n%x, want\n%x", name, got.frame, after)
	}
	if got := r.dropsOf(); !maps.Equal(got, drops) {
		r.Errorf("%s: drops %v, want %v", name, got, drops)
	}
	if got := r.drain(); !slices.Equal(got, events) {
		r.Errorf("%s: events %v, want %v", name, got, events)
	}
}

// visit runs f in the rig's namespace and for another test: a fuzz target is one, and
// runs on a goroutine that the rig does not know.
func (r *rig) visit(t testing.TB, f func(r *rig)) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if netns.Set(before) == nil {
			runtime.UnlockOSThread() // else the thread dies with its goroutine
		}
		before.Close()
	}()
	w, visited := *r.world, *r
	w.TB, visited.world = t, &w
	w.enter(w.relay)
	f(&visited)
}

// visited is the pair as a visit sees it.
func (p *peers) visited(r *rig) *peers {
	v := *p
	v.rig = r
	return &v
}
