package path

import (
	"time"

	"github.com/netport/netport/proto/leg"
)

// Keeper holds one UDP way to another portal open while QUIC on it is silent: over the
// relay or direct, it is the same two NATs and the same question (see silence). What it
// finds out about this portal's network is remembered. It is not safe for concurrent use.
type Keeper struct {
	memory  *memory
	silence silence
}

// Keeper returns a Keeper of a way that begins now. The TLS client has the first turn.
func (f *Finder) Keeper(client bool) *Keeper {
	return &Keeper{f.memory, newSilence(client, time.Now())}
}

// Step returns what to ask the other portal now, if anything; whether this portal's
// NAT may have forgotten the way, so that it is to be found out where it is now; and when
// to call again. heard and sent are the times of the last packets of QUIC.
func (k *Keeper) Step(now, heard, sent time.Time) (ask *leg.Echo, anew bool, again time.Time) {
	own := k.memory.interval()
	do, again, f := k.silence.step(now, heard, sent, own)
	k.memory.learn(f, now)
	if do != rest {
		e := k.silence.echo(own)
		ask = &e
	}
	return ask, do == rebind, again
}

// Take takes what the other portal asks or answers and returns the answer, if it asks.
func (k *Keeper) Take(e leg.Echo, now time.Time) (answer *leg.Echo) {
	k.memory.learn(k.silence.take(e, now), now)
	if e.Answer {
		return nil
	}
	return &leg.Echo{Answer: true, Token: e.Token, Interval: k.memory.interval()}
}

// Bound tells that it was found out where this portal's NAT has the way now, and whether
// that is another place.
func (k *Keeper) Bound(moved bool) { k.silence.bound(moved) }

// Disturb tells that this portal's network has changed, so that a silence shows nothing.
func (k *Keeper) Disturb(now time.Time) { k.silence.disturb(now) }

// Interval is how long a UDP way may be left silent in this network, as far as is known.
func (f *Finder) Interval() time.Duration { return f.memory.interval() }
