// Package traffic runs the meters of package meter through a tunnel while something breaks: checked streams, both ways,
// and numbered datagrams there and back. The same datagrams go past Netport besides, and tell what the machine that
// runs the test does to them by itself.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/meter"
)

// Load says what runs, over connections that exist. All of them belong to the traffic from then on.
type Load struct {
	Pairs []Pair
	// Flow is connected to something that sends every datagram back; nil for none.
	Flow *net.UDPConn
	// Beside is the same past Netport.
	Beside *net.UDPConn

	Rate     int64         // bits per second of each stream, in each direction; 0: Rate
	Block    int           // bytes of a stream's block; 0: 16 KiB
	Interval time.Duration // between two datagrams; 0: 10 ms
}

// Rate is that of a stream in one direction where a load says nothing else, in bits per second.
const Rate = 20e6

// Pair is both ends of one connection.
type Pair struct{ Client, Service net.Conn }

// Traffic is a load that runs. Its methods belong to the test's goroutine.
type Traffic struct {
	t       testing.TB
	load    Load
	stop    context.CancelFunc
	running sync.WaitGroup
	pairs   []*pair

	arrivals     *arrivals // of the flow; nil if there is none
	flow, beside datagrams
}

// arrivals is a flow that knows how many datagrams have come, and when the last did.
type arrivals struct {
	*net.UDPConn
	count, last atomic.Int64 // last in nanoseconds of Unix time
}

func (a *arrivals) Read(b []byte) (int, error) {
	n, err := a.UDPConn.Read(b)
	if err == nil {
		a.count.Add(1)
		a.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// pair is a Pair with a checked stream each way.
type pair struct {
	client, service *counted
	there, back     meter.StreamReport
}

// datagrams is what became of numbered datagrams.
type datagrams struct {
	sent   int
	report meter.DatagramReport
	err    error
}

// counted is a connection that knows how far it has come.
type counted struct {
	*net.TCPConn
	read, written atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// Start starts the load.
func Start(t testing.TB, l Load) *Traffic {
	t.Helper()
	if l.Rate == 0 {
		l.Rate = Rate
	}
	if l.Block == 0 {
		l.Block = 16 << 10
	}
	if l.Interval == 0 {
		l.Interval = 10 * time.Millisecond
	}
	ctx, stop := context.WithCancel(t.Context())
	tr := &Traffic{t: t, load: l, stop: stop}
	t.Cleanup(tr.abandon)
	for i, given := range l.Pairs {
		unlimited(t, given.Client)
		unlimited(t, given.Service)
		p := &pair{client: &counted{TCPConn: given.Client.(*net.TCPConn)}, service: &counted{TCPConn: given.Service.(*net.TCPConn)}}
		tr.pairs = append(tr.pairs, p)
		stream := meter.Stream{Rate: l.Rate, Block: l.Block, Seed: uint64(i)}
		tr.running.Go(func() { p.there, p.back = stream.Exchange(ctx, p.client, p.service) })
	}
	if l.Flow != nil {
		unlimited(t, l.Flow)
		tr.arrivals = &arrivals{UDPConn: l.Flow}
		tr.arrivals.last.Store(time.Now().UnixNano())
		tr.running.Go(func() { tr.flow = measure(ctx, tr.arrivals, l.Interval) })
	}
	if l.Beside != nil {
		unlimited(t, l.Beside)
		tr.running.Go(func() { tr.beside = measure(ctx, l.Beside, l.Interval) })
	}
	return tr
}

// unlimited takes away the time that a connection was given to be made in.
func unlimited(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// measure sends numbered datagrams until ctx ends.
func measure(ctx context.Context, conn interface {
	meter.DatagramReader
	io.Writer
}, interval time.Duration) (d datagrams) {
	m := meter.Datagrams{Count: 1_000_000, Interval: interval, Key: []byte("lab"), Linger: time.Second}
	received := make(chan struct{})
	receiving, finished := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(received)
		var err error
		d.report, err = m.Receive(receiving, conn)
		d.err = errors.Join(err, d.report.Check())
	}()
	sent, _, err := m.Send(ctx, conn)
	finished()
	<-received
	d.sent, d.err = sent, errors.Join(d.err, err)
	return d
}

// Flows waits until everything flows again: until more has arrived of every stream, in both directions, than had been sent
// when it was called, and some more datagrams. It ends the test if that takes longer than the limit.
func (tr *Traffic) Flows(limit time.Duration) {
	tr.t.Helper()
	type way struct {
		name string
		to   *counted
		goal int64
	}
	var ways []way
	for i, p := range tr.pairs {
		ahead := int64(3 * (tr.load.Block + 64)) // what a write that hangs may have got rid of
		ways = append(ways,
			way{fmt.Sprintf("stream %d there", i), p.service, p.client.written.Load() + ahead},
			way{fmt.Sprintf("stream %d back", i), p.client, p.service.written.Load() + ahead})
	}
	var datagrams int64
	if tr.arrivals != nil {
		const some = 5
		datagrams = tr.arrivals.count.Load() + some
	}
	await.Within(tr.t, "flowing", limit, func() error {
		var late error
		if tr.arrivals != nil {
			if got := tr.arrivals.count.Load(); got < datagrams {
				late = fmt.Errorf("%d of %d datagrams", got, datagrams)
			}
		}
		for _, w := range ways {
			if got := w.to.read.Load(); got < w.goal {
				late = errors.Join(late, fmt.Errorf("%s: %d of %d bytes", w.name, got, w.goal))
			}
		}
		return late
	})
}

// Outcome is what became of the traffic.
type Outcome struct {
	Stall   time.Duration // the longest that a stream stood still, in either direction
	Gap     time.Duration // the longest without a datagram that arrived
	Machine time.Duration // the same past Netport
	Bytes   int64         // of streams that arrived, in both directions
	Sent    int           // datagrams
	Arrived int
	// Err says what must never happen: bytes of a stream that were lost, doubled or changed, a stream that ended otherwise
	// than its sender meant, a datagram that arrived twice or that nobody sent.
	Err error
}

// End stops the traffic, waits until all has arrived, and closes the connections.
func (tr *Traffic) End() Outcome {
	tr.t.Helper()
	var silent time.Duration // of the flow, until now
	if tr.arrivals != nil {
		silent = time.Since(time.Unix(0, tr.arrivals.last.Load()))
	}
	tr.stop()
	for _, p := range tr.pairs {
		await.Limit(tr.t, p.client)
		await.Limit(tr.t, p.service)
	}
	tr.running.Wait()
	o := Outcome{Gap: max(silent, tr.flow.report.LongestGap), Machine: tr.beside.report.LongestGap, Sent: tr.flow.sent, Arrived: tr.flow.report.Received}
	o.Err = errors.Join(tr.flow.err, tr.beside.err)
	for i, p := range tr.pairs {
		for way, report := range map[string]meter.StreamReport{"there": p.there, "back": p.back} {
			o.Stall = max(o.Stall, report.LongestStall)
			o.Bytes += report.Received
			if err := report.Check(); err != nil {
				o.Err = errors.Join(o.Err, fmt.Errorf("stream %d %s: %w", i, way, err))
			}
		}
	}
	tr.close()
	return o
}

// abandon ends a traffic whose test has failed before its End.
func (tr *Traffic) abandon() {
	tr.stop()
	tr.close()
	tr.running.Wait()
}

func (tr *Traffic) close() {
	for _, p := range tr.pairs {
		p.client.Close()
		p.service.Close()
	}
	for _, conn := range []*net.UDPConn{tr.load.Flow, tr.load.Beside} {
		if conn != nil {
			conn.Close()
		}
	}
}

// Slack is what the machine itself may add to a stall: two portals, a relay and both applications have to get their
// turns on processors that others use, each as late as datagrams past Netport came at worst.
func (o Outcome) Slack() time.Duration { return 300*time.Millisecond + 3*o.Machine }

func (o Outcome) String() string {
	return fmt.Sprintf("longest stall %v; %d of %d datagrams arrived, longest gap %v; past Netport %v",
		o.Stall.Round(time.Millisecond), o.Arrived, o.Sent, o.Gap.Round(time.Millisecond), o.Machine.Round(time.Millisecond))
}
