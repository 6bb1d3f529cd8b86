package tunnel

import (
	"errors"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/carrier"
	"github.com/netport/netport/proto/wire"
)

// suspect is a way whose carrier broke soon after it had come up. If others of
// the session work, it is the way's fault.
type suspect struct {
	session wire.SessionID
	way     Way
	at      time.Time
}

// loss is what the loss of a carrier means for the tunnel.
type loss struct {
	ends    []end
	over    bool // the tunnel was before
	idle    bool // it was the last, nothing is open and the end was asked for
	unheard bool // it was the last, and nothing has ever come from the peer
}

// left takes away a carrier that has died, and takes off what was attached.
func (t *Tunnel) left(l *link, err error) {
	t.mu.Lock()
	lost := t.removeLocked(l, err, time.Now())
	t.mu.Unlock()
	for _, e := range lost.ends {
		e.lost(l)
	}
	l.blameSize()
	if !lost.over {
		log := t.cfg.Log.Info
		if l.retired.Load() {
			log = t.cfg.Log.Debug
		}
		log("carrier lost", "session", l.conn.Session().String(), "carrier", l.conn.Connection(), "kind", l.conn.Kind().String(), "path", l.way.String(), "error", err)
	}
	switch {
	case lost.idle:
		// The question for the end may have been answered.
		t.finish(nil, &EndError{Reason: wire.ReasonIdle})
	case lost.unheard:
		// The peer may never have taken the carrier, nor made a tunnel of it.
		t.finishLost()
	}
	t.mu.Lock()
	t.changedLocked()
	t.mu.Unlock()
	if t.cfg.Left != nil {
		t.cfg.Left(l.conn.Session(), err)
	}
}

// removeLocked takes a carrier that has died from the list.
func (t *Tunnel) removeLocked(l *link, err error, now time.Time) loss {
	s := l.conn.Stats()
	heard := l.heardAt(now)
	t.heardAt = later(t.heardAt, heard)
	t.links = slices.DeleteFunc(slices.Clone(t.links), func(o *link) bool { return o == l })
	t.recountLocked(heard)
	t.flowsLocked(now)
	if !slices.ContainsFunc(t.links, func(o *link) bool { return o.direct }) {
		t.choice.none()
		t.chooseLocked()
	}
	t.offerLocked(t.bestLocked(wire.CarrierTCP))
	t.past.Sent += s.Sent
	t.past.Received += s.Received
	t.past.Drops += s.Dropped
	t.heard = t.heard || s.Received > 0
	last := len(t.links) == 0
	if last {
		t.lostAt, t.lostWhy = t.heardAt, err
	}
	t.worse = true
	if !t.over && !l.retired.Load() {
		t.further.ended(l, now.Sub(l.since))
	}
	// A peer that closes before it has said a word has not found our HELLO.
	clean := err == nil || errors.Is(err, carrier.ErrClosed) && s.Received > 0
	if !t.over && !clean {
		t.suspectLocked(l, err, now)
	}
	ends := t.endsLocked()
	return loss{ends: ends, over: t.over, idle: last && len(ends) == 0 && t.asked, unheard: last && !t.heard}
}

// suspectLocked looks after what may have broken a carrier: the relay, in which case the
// others of the session are broken too, or its way.
func (t *Tunnel) suspectLocked(l *link, err error, now time.Time) {
	for _, o := range t.links {
		// What was closed here for its silence tells nothing new.
		if o.conn.Session() == l.conn.Session() && !errors.Is(err, errDeserted) {
			o.doubt()
		}
	}
	if now.Sub(l.since) < newTime {
		t.suspects = append(t.suspects, suspect{l.conn.Session(), l.way, now})
		t.suspects = t.suspects[max(0, len(t.suspects)-maxLinks):]
	}
}

// finishLost ends the tunnel for want of a carrier.
func (t *Tunnel) finishLost() {
	t.mu.Lock()
	err := t.lostWhy
	t.mu.Unlock()
	if err == nil {
		err = errNoCarrier
	}
	why := &EndError{Reason: wire.ReasonCarrierLost, Text: err.Error()}
	t.finish(why, why)
}
