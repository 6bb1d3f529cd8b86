// Package link emulates a link between two network namespaces: delay, jitter, rate with a queue, loss evenly spread or
// in bursts, duplicates, reordering and flipped bits, each direction on its own, changeable while it runs.
//
// A link is a TAP device in each namespace and one loop in this process that carries Ethernet frames between them,
// each as large as the MTU at most (the kernel segments before a TAP, so that a lost frame is one packet). Frames wait
// in a heap ordered by time. What happens to them is decided by dice with a known seed. Frames leave some 0.1 ms later
// than asked on an idle machine, more on a busy one. On two cores that run both ends, too, it carries 1.2 Gbit/s of TCP
// in full frames (BenchmarkStream).
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netport/netport/lab/ns"
)

// Config says where a link lies and what it does at first.
type Config struct {
	Near, Far End
	MTU       int    // bytes of an IP packet
	Seed      uint64 // of the dice
	Up        Shape  // from near to far
	Down      Shape  // from far to near
}

// End is one end of a link: a device that New makes in a namespace.
type End struct {
	Space  *ns.Namespace
	Device string
}

// Link is a running link. Its methods may be called from any goroutine.
type Link struct {
	config Config
	taps   [2]int // near, far; owned by the loop until it has ended
	wake   int    // an eventfd: tells the loop to end
	done   chan struct{}
	err    error // of the loop; read after done

	// mu guards the following.
	mu    sync.Mutex
	pipes [2]pipe // up, down: pipes[i] carries from taps[i] to taps[1-i]
}

// batch is how many frames are read from one end before the other's turn.
const batch = 64

// queueLength is how many frames the kernel holds while the loop is busy.
const queueLength = 4096

// New makes the devices, sets them up with their MTU, and starts to carry frames. Both devices must still be brought up.
func New(c Config) (*Link, error) {
	l := &Link{config: c, taps: [2]int{-1, -1}, wake: -1, done: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("make link %s - %s: %w", c.Near.Device, c.Far.Device, err), l.closeFiles())
	}
	go l.run()
	return l, nil
}

func (l *Link) open() error {
	frames := &buffers{size: l.config.MTU + ethernetHeader + 4} // 4 for a VLAN tag
	for i := range l.pipes {
		l.pipes[i] = pipe{dice: rand.New(rand.NewPCG(l.config.Seed, uint64(i))), buffers: frames}
	}
	if err := l.Set(l.config.Up, l.config.Down); err != nil {
		return err
	}
	for i, end := range []End{l.config.Near, l.config.Far} {
		tap, err := openTAP(end, l.config.MTU)
		if err != nil {
			return err
		}
		l.taps[i] = tap
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	l.wake = wake
	return nil
}

// Set changes the shape of both directions for the frames that enter from now on. Frames on the way keep their time,
// and no later frame overtakes them but by Reorder.
func (l *Link) Set(up, down Shape) error {
	up, err := up.check()
	if err != nil {
		return err
	}
	if down, err = down.check(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pipes[0].shape, l.pipes[1].shape = up, down
	return nil
}

// Counters returns what happened so far from near to far and from far to near.
func (l *Link) Counters() (up, down Counters) {
	l.mu.Lock()
	up, down = l.pipes[0].counters, l.pipes[1].counters
	l.mu.Unlock()
	up.Missed, down.Missed = missed(l.config.Near), missed(l.config.Far)
	return up, down
}

// Close ends the link; both devices vanish, and frames on the way are lost.
func (l *Link) Close() error {
	if _, err := unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		return fmt.Errorf("end link: %w", err)
	}
	<-l.done
	return errors.Join(l.err, l.closeFiles())
}

func (l *Link) closeFiles() error {
	var err error
	for _, fd := range []int{l.taps[0], l.taps[1], l.wake} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// run is the loop that carries frames in both directions until Close.
func (l *Link) run() {
	defer close(l.done)
	polled := []unix.PollFd{
		{Fd: int32(l.taps[0]), Events: unix.POLLIN},
		{Fd: int32(l.taps[1]), Events: unix.POLLIN},
		{Fd: int32(l.wake), Events: unix.POLLIN},
	}
	for {
		if _, err := unix.Ppoll(polled, l.untilDue(), nil); err != nil && !errors.Is(err, unix.EINTR) {
			l.err = fmt.Errorf("carry frames: poll: %w", err)
			return
		}
		if polled[2].Revents != 0 {
			return
		}
		if err := l.carry(); err != nil {
			l.err = fmt.Errorf("carry frames: %w", err)
			return
		}
	}
}

// untilDue is how long nothing has to be sent; nil for ever.
func (l *Link) untilDue() *unix.Timespec {
	l.mu.Lock()
	defer l.mu.Unlock()
	var earliest time.Time
	for i := range l.pipes {
		if due, ok := l.pipes[i].next(); ok && (earliest.IsZero() || due.Before(earliest)) {
			earliest = due
		}
	}
	if earliest.IsZero() {
		return nil
	}
	wait := unix.NsecToTimespec(max(0, time.Until(earliest)).Nanoseconds())
	return &wait
}

// carry takes what has arrived and sends on what is due, each direction in turn.
func (l *Link) carry() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.pipes {
		if err := l.take(&l.pipes[i], l.taps[i]); err != nil {
			return err
		}
	}
	now := time.Now()
	for i := range l.pipes {
		for {
			data, ok := l.pipes[i].pop(now)
			if !ok {
				break
			}
			l.deliver(&l.pipes[i], l.taps[1-i], data)
		}
	}
	return nil
}

func (l *Link) take(p *pipe, tap int) error {
	now := time.Now()
	for range batch {
		data := p.buffers.get()
		n, err := unix.Read(tap, data)
		if err != nil {
			p.buffers.recycle(data)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				return nil
			}
			return fmt.Errorf("read from TAP device: %w", err)
		}
		p.accept(now, data[:n])
	}
	return nil
}

func (l *Link) deliver(p *pipe, tap int, data []byte) {
	if _, err := unix.Write(tap, data); err != nil {
		p.counters.Refused++
	} else {
		p.counters.Delivered++
		p.counters.Bytes += uint64(len(data))
	}
	p.buffers.recycle(data)
}

// openTAP makes a TAP device in the end's namespace, which lives as long as the descriptor.
func openTAP(end End, mtu int) (int, error) {
	var fd int
	var err error
	if doErr := end.Space.Do(func() { fd, err = tunSetIff(end.Device) }); doErr != nil {
		return -1, doErr
	}
	if err != nil {
		return -1, fmt.Errorf("make TAP device %s: %w", end.Device, err)
	}
	if err := setQueue(end, mtu); err != nil {
		return -1, errors.Join(fmt.Errorf("set up TAP device %s: %w", end.Device, err), unix.Close(fd))
	}
	return fd, nil
}

func tunSetIff(device string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func setQueue(end End, mtu int) error {
	h, err := end.Space.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	device, err := h.LinkByName(end.Device)
	if err != nil {
		return err
	}
	if err := h.LinkSetMTU(device, mtu); err != nil {
		return err
	}
	return h.LinkSetTxQLen(device, queueLength)
}

// missed is how many frames the kernel dropped at an end because the loop did not take them in time.
func missed(end End) uint64 {
	h, err := end.Space.Netlink()
	if err != nil {
		return 0
	}
	defer h.Close()
	device, err := h.LinkByName(end.Device)
	if err != nil || device.Attrs().Statistics == nil {
		return 0 // gone: the link is closed
	}
	return device.Attrs().Statistics.TxDropped
}
