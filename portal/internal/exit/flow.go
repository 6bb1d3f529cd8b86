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
	// above the 2 minutes of the entry, whose word it normally is; this one is
	// for an entry that has vanished.
	flowIdle = 150 * time.Second
	// flowBuffer is asked of the system for a flow's socket in each direction:
	// a few of the largest datagrams.
	flowBuffer = 1 << 20
)

// flow is a connected UDP socket that ends by itself when it is idle. Its port
// is its client's towards the target as long as the flow lives.
//
// What ICMP says of a target (nobody listens, no way there) ends the flow, with
// that as its reason, if the target has never answered: its client's next
// datagram makes a new one. A target that has answered may be back for the next
// datagram, and must find its client at the same port; so it ends nothing there.
type flow struct {
	*net.UDPConn
	exit     *Exit
	used     atomic.Int64          // Unix nanoseconds
	answered atomic.Bool           // the target has sent something
	failed   atomic.Pointer[error] // why Read is to end the flow
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
		// After the deadline is set: who fails the flow sets it to the past.
		if err := f.failed.Load(); err != nil {
			return 0, *err
		}
		n, err := f.UDPConn.Read(b)
		switch {
		case err == nil:
			f.touch()
			f.answered.Store(true)
			return n, nil
		case f.aboutEarlier(err):
		case errors.Is(err, os.ErrDeadlineExceeded) && f.failed.Load() != nil:
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
	for range 2 { // what an earlier datagram met may come in the place of this one's error
		n, err := f.UDPConn.Write(b)
		if err == nil || !f.aboutEarlier(err) {
			return n, err
		}
		if isAny(err, oversizedErrnos) {
			break
		}
	}
	return len(b), nil
}

// aboutEarlier takes an error that tells what a datagram met on its way, an
// earlier one than that of the call: it says nothing of the socket.
func (f *flow) aboutEarlier(err error) bool {
	switch {
	case isAny(err, oversizedErrnos):
		f.exit.oversized.Add(1)
	case isAny(err, refusedErrnos), isAny(err, unreachedErrnos):
		f.exit.unreachable.Add(1)
		if !f.answered.Load() && f.failed.CompareAndSwap(nil, &err) {
			f.SetReadDeadline(time.Unix(1, 0))
		}
	default:
		return false
	}
	forgetErrors(f.UDPConn)
	return true
}
