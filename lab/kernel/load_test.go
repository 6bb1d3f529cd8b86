package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/meter"
)

// load is what a session carries while something happens to the relay: numbered datagrams and a checked stream, both in
// both directions.
type load struct {
	w         *world
	stop      context.CancelFunc
	started   time.Time
	want      int // datagrams
	perSecond int
	flows     chan flow
	stream    chan error
}

// flow is what became of the datagrams of one direction.
type flow struct {
	sent   int
	report meter.DatagramReport
	err    error
}

// startLoad starts it. No fewer than want datagrams will be sent.
func (w *world) startLoad(legs [2]udpLeg, ends [2]net.Conn, want int) *load {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	w.t.Cleanup(stop)
	l := &load{w: w, stop: stop, started: time.Now(), want: want, perSecond: 2000, flows: make(chan flow, 2), stream: make(chan error, 1)}
	if *full {
		l.perSecond = 10_000
	}
	for i := range legs {
		go func() { l.flows <- l.carry(ctx, legs[i], legs[1-i]) }()
	}
	if ends[0] == nil {
		l.stream <- nil
		return l
	}
	for _, end := range ends {
		if err := end.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			w.t.Fatal(err)
		}
	}
	go func() {
		there, back := meter.Stream{Rate: 20e6}.Exchange(ctx, ends[0], ends[1])
		l.stream <- errors.Join(there.Check(), back.Check())
	}()
	return l
}

// carry sends one direction's datagrams until ctx ends.
func (l *load) carry(ctx context.Context, from, to udpLeg) (f flow) {
	d := meter.Datagrams{
		Count: 10_000_000, Interval: 2 * time.Second / time.Duration(l.perSecond), Key: []byte("load"), Linger: time.Second,
	}
	receiving, finished := context.WithCancel(context.WithoutCancel(ctx))
	received := make(chan struct{})
	go func() {
		defer close(received)
		var err error
		f.report, err = d.Receive(receiving, to)
		f.err = errors.Join(err, f.report.Check())
	}()
	sent, refused, err := d.Send(ctx, from)
	finished()
	<-received
	f.sent = sent
	f.err = errors.Join(f.err, err)
	if refused > 0 {
		f.err = errors.Join(f.err, fmt.Errorf("%d datagrams were refused by their own host", refused))
	}
	return f
}

// end stops the load when enough was sent. Nothing may be lost.
func (l *load) end() {
	t := l.w.t
	t.Helper()
	if left := time.Duration(l.want)*time.Second/time.Duration(l.perSecond) - time.Since(l.started); left > 0 {
		await.Passing(t, left)
	}
	l.stop()
	sent := 0
	for range 2 {
		f := <-l.flows
		if f.err != nil {
			t.Error(f.err)
		}
		if lost := f.sent - f.report.Received; lost > 0 {
			t.Errorf("%d of %d datagrams were lost, longest gap %v", lost, f.sent, f.report.LongestGap)
		}
		sent += f.sent
	}
	t.Logf("%d datagrams were sent", sent)
	if err := <-l.stream; err != nil {
		t.Error(err)
	}
}
