package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

const (
	// flowIdle ends a flow that carried nothing in either direction. It is
	// above the 60 s of the entry, whose word it normally is; this one is for
	// an entry that has vanished.
	flowIdle = 90 * time.Second
	// flowBuffer is asked of the system for a flow's socket in each direction:
	// a few of the largest datagrams.
	flowBuffer = 1 << 20
)

// flow is a connected UDP socket that ends by itself when it is idle. A target
// where no one listens does not end it: the next datagram may find someone.
type flow struct {
	*net.UDPConn
	exit *Exit
	used atomic.Int64 // Unix nanoseconds
}

func (x *Exit) dialUDP(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	conn, err := x.dialer.DialContext(ctx, "udp", a.String())
	if err != nil {
		return nil, err
	}
	f := &flow{UDPConn: conn.(*net.UDPConn), exit: x}
	// Best effort: the system's limit counts.
	f.SetReadBuffer(flowBuffer)
	f.SetWriteBuffer(flowBuffer)
	f.touch()
	return f, nil
}

func (f *flow) touch() { f.used.Store(time.Now().UnixNano()) }

// Read reads one datagram.
func (f *flow) Read(b []byte) (int, error) {
	for {
		f.SetReadDeadline(time.Unix(0, f.used.Load()).Add(flowIdle))
		n, err := f.UDPConn.Read(b)
		switch {
		case err == nil:
			f.touch()
			return n, nil
		case isAny(err, refusedErrnos):
			f.exit.unreachable.Add(1)
		case isAny(err, oversizedErrnos): // what an earlier datagram met on its way
			f.exit.oversized.Add(1)
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, f.used.Load())) < flowIdle:
			// Something was written meanwhile.
		default:
			return 0, err
		}
	}
}

// Write sends one datagram. One that the target or the way to it did not take
// is lost, as datagrams are.
func (f *flow) Write(b []byte) (int, error) {
	f.touch()
	n, err := f.UDPConn.Write(b)
	switch {
	case isAny(err, refusedErrnos): // about an earlier one
		f.exit.unreachable.Add(1)
		n, err = f.UDPConn.Write(b)
	case isAny(err, oversizedErrnos):
		f.exit.oversized.Add(1)
		return len(b), nil
	}
	if isAny(err, refusedErrnos) {
		return len(b), nil
	}
	return n, err
}
