package carrier

import "time"

const (
	// askEvery is the interval of PINGs while anything is owed or coming.
	askEvery = 500 * time.Millisecond
	// lookEvery is the interval of looks while the peer is silent.
	lookEvery = 100 * time.Millisecond
	// leastOverdue is how long an answer may take on any path. On a slow one
	// it is four round trips, as they are under the load there is, and
	// overdueExtra.
	leastOverdue = 1200 * time.Millisecond
	overdueExtra = 200 * time.Millisecond
	// deadAfter is when a carrier on which nothing comes is given up. TCP and
	// QUIC get over shorter gaps by themselves, and until then no other
	// carrier may be there.
	deadAfter = 20 * time.Second
	// stallTime is by how much a look must come late for this process, or its
	// machine, to have stood still. What was owed meanwhile the peer may have
	// sent, but nobody was there to read it.
	stallTime = time.Second
	// lateTime is by how much a look must come late to decide nothing.
	lateTime = 100 * time.Millisecond
	// leastDoubt is how long an answer may take where the path is in doubt; three
	// round trips and doubtExtra where that is more.
	leastDoubt = 200 * time.Millisecond
	doubtExtra = 100 * time.Millisecond
)

// vigil decides, at each look, whether the peer is silent or dead. It has no
// clock and sends nothing.
//
//	well --nothing comes for overdue, or no answer for 1.5 x overdue--> silent
//	silent --an answer--> well
//	silent --nothing for deadAfter, or no answer for 2 x deadAfter--> dead
//
// All of that only while a PING waits for its answer. An answer is a PONG or an
// ACK: they show that the way there works as well. Other frames show that the
// peer is there, and an answer may be behind them in a queue; but when only the
// way there is broken they keep coming.
type vigil struct {
	due        time.Time // when this look was to be
	heardAt    time.Time // look at which something had come
	answeredAt time.Time // look at which an answer had come
	busyAt     time.Time // look at which frames had come or left
	askedAt    time.Time // when the last PING left that a look has asked for
	silent     bool

	// A PING is small and passes where full packets do not. So what fills
	// packets is followed by a PING that does, until one of these is answered.
	leftAt   time.Time // look at which full packets had left
	filledAt time.Time // when the last PING left that fills a packet
	provenAt time.Time // when the last one left that was answered

	// While there is a doubt, only what comes in its second half counts, and the
	// answer to a PING that was asked in it: what comes first may have been in the
	// socket for a while.
	doubtFrom, doubtTo time.Time // zero: there is none
}

// sight is what happened since the look before.
type sight struct {
	heard    bool      // something came
	answered bool      // PONG or ACK came
	asked    bool      // the peer's PING came
	busy     bool      // frames of streams or flows came or left
	left     bool      // some that fill a packet left
	rested   bool      // the look before had found that nothing is to do
	waiting  time.Time // when the oldest PING left that waits for its PONG; zero: none
	rtt      time.Duration
}

// finding is what follows from a look.
type finding struct {
	silent bool
	dead   bool
	quiet  time.Time     // since when nothing has come, or, if that is later, an answer is owed
	rest   bool          // nothing is to do but what keeps an idle carrier
	ask    bool          // send a PING
	fill   bool          // one that fills a packet
	next   time.Duration // until the next look, unless rest
}

// begin starts the vigil, or starts it anew after a rest.
func (v *vigil) begin(now time.Time, wait time.Duration) {
	v.due, v.heardAt, v.answeredAt = now.Add(wait), now, now
}

func (v *vigil) look(now time.Time, s sight) finding {
	owed := v.note(now, s)
	// A PING that left after the last frame was answered: nothing is owed.
	covered := s.waiting.IsZero() && !v.busyAt.After(v.askedAt)
	if !owed && !s.busy && covered && (!s.rested || s.asked) {
		v.silent = false
		return finding{rest: true}
	}
	late := now.Sub(v.due)
	f := finding{next: askEvery, quiet: latest(v.heardAt, s.waiting)}
	quiet, mute := now.Sub(f.quiet), now.Sub(latest(v.answeredAt, s.waiting))
	overdue := max(leastOverdue, 4*s.rtt+overdueExtra)
	switch {
	case s.waiting.IsZero() || s.answered:
		v.silent = false
	case quiet >= deadAfter || mute >= 2*deadAfter:
		f.dead = true
	case late >= lateTime:
		f.next = lookEvery
	case quiet >= overdue || mute >= overdue*3/2:
		v.silent = true
	default:
		f.next = min(askEvery, overdue-quiet, overdue*3/2-mute)
	}
	v.resolve(now, s, late)
	if !v.doubtTo.IsZero() {
		f.next = min(f.next, v.doubtNext(now))
	}
	if v.silent {
		f.next = lookEvery
	}
	f.silent = v.silent
	if now.Sub(v.askedAt) >= askEvery-lookEvery/2 {
		f.ask, f.fill = true, owed
		v.askedAt = now
		if owed {
			v.filledAt = now
		}
	}
	v.due = now.Add(f.next)
	return f
}

// doubt begins a doubt with a PING that leaves now. It returns when to look.
func (v *vigil) doubt(now time.Time, rtt time.Duration) time.Duration {
	v.doubtFrom, v.doubtTo = now, now.Add(max(leastDoubt, 3*rtt+doubtExtra))
	v.askedAt = now
	wait := v.doubtNext(now)
	v.due = now.Add(wait)
	return wait
}

// doubtNext is how long it is until the middle of the doubt, or until its end.
func (v *vigil) doubtNext(now time.Time) time.Duration {
	middle := v.doubtFrom.Add(v.doubtTo.Sub(v.doubtFrom) / 2)
	if now.Before(middle) {
		return middle.Sub(now)
	}
	return max(v.doubtTo.Sub(now), time.Millisecond)
}

// resolve ends a doubt when its time has come, or when an answer has.
func (v *vigil) resolve(now time.Time, s sight, late time.Duration) {
	switch {
	case v.doubtTo.IsZero():
	case s.waiting.IsZero() || s.waiting.After(v.doubtFrom):
		v.doubtTo = time.Time{}
	case now.Before(v.doubtTo):
	case late >= lateTime:
		v.doubtTo = now.Add(lookEvery)
	default:
		v.silent = v.silent || !s.heard
		v.doubtTo = time.Time{}
	}
}

// note remembers when things happened. It reports whether full packets have left
// of which nothing shows that they pass.
func (v *vigil) note(now time.Time, s sight) (owed bool) {
	if now.Sub(v.due) >= stallTime {
		v.heardAt, v.answeredAt = now, now
	}
	if s.heard {
		v.heardAt = now
	}
	if s.answered {
		v.answeredAt = now
	}
	if s.left {
		v.leftAt = now
	}
	if s.busy {
		v.busyAt = now
	}
	if s.waiting.IsZero() || s.waiting.After(v.filledAt) {
		v.provenAt = v.filledAt
	}
	return v.leftAt.After(v.provenAt)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
