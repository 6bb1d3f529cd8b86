package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

const (
	// drainInterval is how often a drain looks at what is left.
	drainInterval = 50 * time.Millisecond
	// drainQuiet is how long nothing may end or be carried before a drain takes what
	// is left for sessions that nobody moves.
	drainQuiet = 2 * time.Second
)

// A relay that is to stop lets the server move its sessions first:
//
//	serving --SIGTERM, "drain"--> draining --none left, nothing happens, or the time is over--> what is left ends
//
// It takes no session while it drains, nor after. Sessions of tickets are not
// waited for: the server does not know them, and their portals find each other
// again by themselves.

// Drained is what became of the sessions of a relay that was to stop.
type Drained struct {
	Moved int `json:"moved"` // ended by the server, as a rule because they have moved
	Left  int `json:"left"`  // ended by this relay: nobody moved them in time
}

// refusing reports whether the relay takes no session any more.
func (d *Daemon) refusing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.draining || d.stopping
}

// drain has the sessions moved and waits until they are, or ctx is cancelled. It
// leaves the ones that nobody has moved.
func (d *Daemon) drain(ctx context.Context) {
	d.mu.Lock()
	if !d.draining {
		d.draining = true
		d.sendLocked(wire.RelayDraining{Reason: wire.ReasonShutdown})
	}
	d.mu.Unlock()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	left, carried := d.ordered()
	d.log.Info("relay drains", "sessions", left, "for", d.current().Drain)
	begun := time.Now()
	happened := begun
	for {
		select {
		case now := <-tick.C:
			n, t := d.ordered()
			if n != left || t != carried {
				left, carried, happened = n, t, now
			}
			if n == 0 || now.Sub(happened) >= drainQuiet || now.Sub(begun) >= d.current().Drain {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// ordered returns how many sessions there are that the server knows, with those
// whose end it is about to be told, and what they had carried at the last sweep.
func (d *Daemon) ordered() (n int, carried lease.Traffic) {
	for _, s := range d.leases.List() {
		if !s.Ticket() {
			n++
			carried = carried.Plus(s.Traffic)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return n + d.ending, carried
}

// moveAway drains before the relay stops, if there is anybody to move what it has
// and it does not stay in the kernel for the next relay anyway. It sweeps
// meanwhile.
func (d *Daemon) moveAway(parts context.Context) {
	if n, _ := d.ordered(); n == 0 || d.current().Drain == 0 || d.persistent() || d.movable() != nil {
		return
	}
	ctx, done := context.WithCancel(parts)
	defer done()
	var draining sync.WaitGroup
	draining.Go(func() {
		defer done()
		d.drain(ctx)
	})
	d.watch(ctx, parts)
	draining.Wait()
}

// movable returns why nobody can move the sessions elsewhere, if that is so.
func (d *Daemon) movable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.conn == nil:
		return errors.New("no server is connected that could have the sessions moved")
	case d.others == 0:
		return errors.New("the server knows no other relay that could take the sessions")
	}
	return nil
}

// persistent reports whether the kernel carries on with the sessions when the
// relay stops.
func (d *Daemon) persistent() bool { return d.plane != nil && d.plane.Persistent() }

// empty answers the command "drain": it drains whatever the kernel could carry on
// with, ends what is left, and leaves a relay that takes no session.
func (d *Daemon) empty(ctx context.Context, _ json.RawMessage) (any, error) {
	if err := d.movable(); err != nil {
		return nil, fmt.Errorf("drain: %w", err)
	}
	before, _ := d.ordered()
	d.drain(ctx)
	if ctx.Err() != nil {
		return nil, errors.New("drain: the relay stops")
	}
	var r Drained
	for _, s := range d.leases.List() {
		if d.end(s.ID, wire.ReasonShutdown) && !s.Ticket() {
			r.Left++
		}
	}
	r.Moved = max(0, before-r.Left)
	return r, nil
}
