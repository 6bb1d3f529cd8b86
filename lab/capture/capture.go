// Package capture writes what crosses a network device into a pcap file, readable by tcpdump and Wireshark.
//
// It keeps the first bytes of each packet and the first part of a long run, so that it can stay on in every test.
// Packets between namespaces may be larger than the MTU (segmentation is left to a real device) and may show checksums
// that are not yet filled in.
package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	snapLength  = 192      // bytes kept of a packet: headers, and the start of what they carry
	fileLimit   = 32 << 20 // bytes of a file
	socketQueue = 4 << 20  // bytes that wait in the socket
)

// Capture is one running capture. Its goroutine owns the file until Close.
type Capture struct {
	file    *os.File
	socket  *os.File
	done    chan struct{}
	err     error // of the goroutine; read after done
	written int
}

// Start captures what device sends and gets, into file, which Close closes. It must be called inside the device's network
// namespace and needs root.
func Start(device string, file *os.File) (*Capture, error) {
	socket, err := open(device)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", device, err)
	}
	c := &Capture{file: file, socket: socket, done: make(chan struct{})}
	if err := c.write(fileHeader()); err != nil {
		return nil, errors.Join(fmt.Errorf("capture on %s: %w", device, err), socket.Close())
	}
	go c.run()
	return c, nil
}

// open returns a packet socket for the device that gets snapLength bytes of each packet, with the kernel's time.
func open(device string) (*os.File, error) {
	iface, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	keep := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: snapLength}
	for _, step := range []func() error{
		func() error {
			return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &keep})
		},
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketQueue) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: iface.Index})
		},
	} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("set up packet socket: %w", err), unix.Close(fd))
		}
	}
	return os.NewFile(uintptr(fd), "packets of "+device), nil
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// run writes packets until the socket's deadline passes, which Close sets, and none waits.
func (c *Capture) run() {
	defer close(c.done)
	raw, err := c.socket.SyscallConn()
	if err != nil {
		c.err = err
		return
	}
	for {
		// It writes all packets there are, then waits for more.
		if err := raw.Read(func(fd uintptr) bool { c.err = c.drain(int(fd)); return c.err != nil }); err != nil || c.err != nil {
			return
		}
	}
}

// drain writes the packets that wait in the socket.
func (c *Capture) drain(fd int) error {
	packet, control := make([]byte, snapLength), make([]byte, 256)
	for {
		n, controlLen, _, _, err := unix.Recvmsg(fd, packet, control, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENETDOWN): // the link was set down; it may return
			continue
		case err != nil:
			return fmt.Errorf("read packet: %w", err)
		}
		at, length := readControl(control[:controlLen], n)
		if err := c.write(append(packetHeader(at, n, length), packet[:n]...)); err != nil {
			return err
		}
	}
}

func (c *Capture) write(b []byte) error {
	if c.written+len(b) > fileLimit {
		return nil
	}
	c.written += len(b)
	_, err := c.file.Write(b)
	return err
}

// Close ends the capture after all that crossed the device so far is in the file.
func (c *Capture) Close() error {
	err := c.socket.SetReadDeadline(time.Unix(1, 0))
	<-c.done
	if c.err == nil {
		if raw, rawErr := c.socket.SyscallConn(); rawErr != nil {
			err = errors.Join(err, rawErr)
		} else {
			err = errors.Join(err, raw.Control(func(fd uintptr) { c.err = c.drain(int(fd)) }))
		}
	}
	return errors.Join(err, c.err, c.socket.Close(), c.file.Close())
}

// readControl finds when the kernel saw a packet and how long it was before it was cut to captured bytes.
func readControl(control []byte, captured int) (at time.Time, length int) {
	at, length = time.Now(), captured
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return at, length
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 8:
			length = int(binary.NativeEndian.Uint32(m.Data[4:])) // tpacket_auxdata.tp_len
		}
	}
	return at, length
}
