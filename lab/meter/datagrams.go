package meter

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Datagrams says what numbered datagrams are sent. Both ends use the same value. A datagram is
//
//	sequence uint64, from 0 | MAC [8] | filler
//
// where the MAC is the start of HMAC-SHA256 over the sequence and the filler.
type Datagrams struct {
	Count    int           // datagrams
	Size     int           // bytes of each, 16 to 65,507; 0 is 200
	Interval time.Duration // between two; 0 sends as fast as the socket takes them
	Key      []byte        // of the MAC
	// Linger is how long nothing must arrive until the receiver takes it that nothing more will; 0 is 500 ms.
	Linger time.Duration
}

const (
	datagramHeader = 16
	maxDatagram    = 65507
)

// DatagramReport is what arrived of numbered datagrams.
type DatagramReport struct {
	Received   int // distinct ones
	Lost       int // of Count
	Duplicated int // arrivals of one that had arrived
	Reordered  int // arrivals behind a later one, duplicates left out
	Forged     int // arrivals that were never sent like this: forged, corrupted, cut short
	LongestGap time.Duration
}

// Check returns nil if nothing arrived that was not sent, and nothing twice. Loss and order are the caller's to judge.
func (r DatagramReport) Check() error {
	if r.Forged > 0 || r.Duplicated > 0 {
		return fmt.Errorf("numbered datagrams: %v", r)
	}
	return nil
}

func (r DatagramReport) String() string {
	return fmt.Sprintf("received %d datagrams: lost %d, duplicated %d, reordered %d, forged %d, longest gap %v",
		r.Received, r.Lost, r.Duplicated, r.Reordered, r.Forged, r.LongestGap)
}

func (d Datagrams) withDefaults() (Datagrams, error) {
	if d.Size == 0 {
		d.Size = 200
	}
	if d.Linger == 0 {
		d.Linger = 500 * time.Millisecond
	}
	if d.Size < datagramHeader || d.Size > maxDatagram || d.Count < 1 {
		return d, fmt.Errorf("%d datagrams of %d bytes: want 1 or more, of %d to %d bytes", d.Count, d.Size, datagramHeader, maxDatagram)
	}
	return d, nil
}

// Send sends the datagrams to w, each with one Write, until all are sent or ctx ends. A network that refuses one
// (unreachable, no buffers) does not end it. It returns how many w took and how many it refused.
func (d Datagrams) Send(ctx context.Context, w io.Writer) (sent, refused int, err error) {
	if d, err = d.withDefaults(); err != nil {
		return 0, 0, fmt.Errorf("send: %w", err)
	}
	b := make([]byte, d.Size)
	start := time.Now()
	for i := range d.Count {
		if ctx.Err() != nil {
			break
		}
		d.fill(b, uint64(i))
		switch _, err := w.Write(b); {
		case err == nil:
			sent++
		case errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe):
			return sent, refused, fmt.Errorf("send datagram %d: %w", i, err)
		default:
			refused++
		}
		wait(ctx, time.Until(start.Add(time.Duration(i+1)*d.Interval)))
	}
	return sent, refused, nil
}

// fill writes datagram number i into b.
func (d Datagrams) fill(b []byte, i uint64) {
	binary.BigEndian.PutUint64(b, i)
	for j := range b[datagramHeader:] {
		b[datagramHeader+j] = byte(i) + byte(j)
	}
	copy(b[8:], d.mac(b))
}

func (d Datagrams) mac(b []byte) []byte {
	h := hmac.New(sha256.New, d.Key)
	h.Write(b[:8])
	h.Write(b[datagramHeader:])
	return h.Sum(nil)[:8]
}

// DatagramReader is a connection of which each Read returns one datagram, such as a *net.UDPConn or a Peer.
type DatagramReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// Receive reads datagrams until all have arrived or ctx has ended, and then until none came for the linger time, so that
// late and surplus ones are counted, too. End ctx when the sender has finished.
func (d Datagrams) Receive(ctx context.Context, r DatagramReader) (DatagramReport, error) {
	d, err := d.withDefaults()
	if err != nil {
		return DatagramReport{}, fmt.Errorf("receive: %w", err)
	}
	// The reader waits without limit until ctx ends, which wakes it, and after that at most the linger time. A deadline that
	// was set before would let it spin instead, and read nothing.
	if err := r.SetReadDeadline(time.Time{}); err != nil {
		return DatagramReport{}, fmt.Errorf("receive datagrams: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c := datagramReceiver{datagrams: d, seen: make([]bool, d.Count)}
	b := make([]byte, maxDatagram+1)
	var quiet time.Time // since when nothing came; zero before lingering
	for {
		if quiet.IsZero() && (c.report.Received == d.Count || ctx.Err() != nil) {
			quiet = time.Now()
		}
		if !quiet.IsZero() {
			if err := r.SetReadDeadline(quiet.Add(d.Linger)); err != nil {
				return c.finish(), fmt.Errorf("receive datagrams: %w", err)
			}
		}
		n, err := r.Read(b)
		now := time.Now()
		switch {
		case err == nil:
			c.arrived(now, b[:n])
			if !quiet.IsZero() {
				quiet = now
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !quiet.IsZero() && now.Sub(quiet) >= d.Linger {
				return c.finish(), nil
			}
		case isUnreachable(err): // an ICMP error for something that was sent on this socket
		default:
			return c.finish(), fmt.Errorf("receive datagrams: %w", err)
		}
	}
}

func isUnreachable(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

// datagramReceiver accounts for what arrives. One goroutine owns it.
type datagramReceiver struct {
	datagrams Datagrams
	report    DatagramReport
	seen      []bool
	highest   uint64
	last      time.Time
}

func (c *datagramReceiver) arrived(now time.Time, b []byte) {
	if len(b) != c.datagrams.Size || !hmac.Equal(b[8:datagramHeader], c.datagrams.mac(b)) {
		c.report.Forged++
		return
	}
	i := binary.BigEndian.Uint64(b)
	if i >= uint64(len(c.seen)) {
		c.report.Forged++
		return
	}
	if c.seen[i] {
		c.report.Duplicated++
		return
	}
	c.seen[i] = true
	c.report.Received++
	if i < c.highest {
		c.report.Reordered++
	}
	c.highest = max(c.highest, i)
	if !c.last.IsZero() {
		c.report.LongestGap = max(c.report.LongestGap, now.Sub(c.last))
	}
	c.last = now
}

func (c *datagramReceiver) finish() DatagramReport {
	c.report.Lost = c.datagrams.Count - c.report.Received
	return c.report
}

// Measure sends the datagrams to w and receives them from r, and reports what arrived.
func (d Datagrams) Measure(ctx context.Context, w io.Writer, r DatagramReader) (DatagramReport, error) {
	receiving, finished := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() {
		_, _, err := d.Send(ctx, w)
		finished()
		sent <- err
	}()
	report, err := d.Receive(receiving, r)
	return report, errors.Join(err, <-sent)
}

// Peer makes one peer of a packet connection look like a connection: it writes to Addr and reads from anyone.
type Peer struct {
	net.PacketConn
	Addr net.Addr
}

// Write sends one datagram to the peer.
func (p Peer) Write(b []byte) (int, error) { return p.WriteTo(b, p.Addr) }

// Read returns one datagram, whoever sent it.
func (p Peer) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}
