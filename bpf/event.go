//go:build linux

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// EventKind says what the program wants of the daemon.
type EventKind uint8

const (
	// Handshake is TCP to a packet port from an admitted source: a SYN, or a
	// packet without a flow. It was not forwarded.
	Handshake = EventKind(relayEventKindEVENT_HANDSHAKE)
	// Forward is a packet of a flow that the program could not send: please
	// rewrite it and send it.
	Forward = EventKind(relayEventKindEVENT_FORWARD)
	// TooBig is a packet of a flow that the way out, of Event.MTU, cannot take.
	TooBig = EventKind(relayEventKindEVENT_TOO_BIG)
)

// EventReason says why there is an event.
type EventReason uint8

// reasonNames are those of enum event_reason.
var reasonNames = [...]string{
	relayEventReasonREASON_SYN:        "syn",
	relayEventReasonREASON_NO_FLOW:    "no_flow",
	relayEventReasonREASON_NEIGHBOUR:  "neighbour",
	relayEventReasonREASON_FORWARDING: "forwarding",
	relayEventReasonREASON_ROUTE:      "route",
	relayEventReasonREASON_MTU:        "mtu",
}

// String returns the reason in one word, as in enum event_reason.
func (r EventReason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Event is a packet that the program leaves to the daemon.
type Event struct {
	Kind      EventKind
	Reason    EventReason
	Interface int // the index of where it arrived
	MTU       int // of TooBig: the most that the way out can take, from the IP header on
	// Packet is the packet as it arrived, from the IP header on. It is borrowed
	// until the handler returns.
	Packet []byte
}

// eventLen is the length of struct event without its packet.
const eventLen = 12

// parseEvent reads a record of the ring.
func parseEvent(b []byte) (Event, error) {
	if len(b) < eventLen {
		return Event{}, fmt.Errorf("event of %d bytes", len(b))
	}
	n := binary.NativeEndian.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-eventLen) {
		return Event{}, fmt.Errorf("event with %d bytes of packet has %d", n, len(b)-eventLen)
	}
	return Event{
		Kind:      EventKind(b[8]),
		Reason:    EventReason(b[9]),
		Interface: int(binary.NativeEndian.Uint32(b)),
		MTU:       int(binary.NativeEndian.Uint16(b[10:])),
		Packet:    b[eventLen:][:n],
	}, nil
}

// Run hands the program's events to handle, one at a time, and follows the
// network: it attaches to interfaces that appear, and anew to those that have
// come back, and sends packets where routes lead now. It returns when ctx is done,
// or with an error when one of these is over; what is attached then goes on
// forwarding. One Run goes on at a time.
//
// Attaching is done by the calling goroutine, so that a thread in a network
// namespace of its own stays in it.
func (k *Kernel) Run(ctx context.Context, handle func(Event)) error {
	ring, err := ringbuf.NewReader(k.maps.Events)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { ring.Close() })()
	var running sync.WaitGroup
	var errs [3]error
	running.Go(func() {
		defer cancel()
		errs[0] = k.readEvents(ring, handle)
	})
	running.Go(func() {
		defer cancel()
		errs[1] = k.followRoutes(ctx)
	})
	errs[2] = k.followInterfaces(ctx)
	cancel()
	running.Wait()
	return errors.Join(errs[:]...)
}

func (k *Kernel) readEvents(ring *ringbuf.Reader, handle func(Event)) error {
	var record ringbuf.Record
	for {
		err := ring.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		e, err := parseEvent(record.RawSample)
		if err != nil {
			k.log.Warn("event not understood", "error", err)
			continue
		}
		handle(e)
	}
}

// forgetEvents empties the ring of what came while nobody read it: packets that
// are too late to be of use to anybody.
func (k *Kernel) forgetEvents() error {
	ring, err := ringbuf.NewReader(k.maps.Events)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer ring.Close()
	ring.SetDeadline(time.Unix(1, 0)) // reads what is there and waits for nothing
	var record ringbuf.Record
	for left := ring.AvailableBytes(); left > 0; left -= len(record.RawSample) {
		if err := ring.ReadInto(&record); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("read events: %w", err)
		}
	}
	return nil
}
