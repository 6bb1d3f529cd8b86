package direct

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/wire"
)

const (
	// furtherTime is how long a further connection may take: until the other portal has heard that
	// it is wanted, behind what is under way to it, and has been reached.
	furtherTime = 2 * knockTime
	// After one that did not come there is none for firstFurther, then longer each time, up to
	// lastFurther: NATs that do not keep ports let none through, and each try costs a few packets.
	firstFurther = 5 * time.Second
	lastFurther  = time.Hour
	// callsAtOnce bounds the connections that the TLS client has the server dial for further
	// carriers, and callRefill is how soon it may have one more.
	callsAtOnce = 16
	callRefill  = 10 * time.Second
)

var (
	errFurther = errors.New("no further direct TCP connection came up")
	errCalls   = errors.New("the peer asks for too many direct TCP connections")
)

// further is what a Path has of connections that follow the first. A TCP carrier is one processor's
// worth of encryption, so streams spread over several.
//
// Who has dialled the first dials those that follow, to the same address and from another port: that
// far above the first one's as their number is. The other knocks from the first one's port at the
// address from which it expects them, which opens its own NAT, if there is one. So they come through
// open doors, and through NATs that keep ports as they are. Both ends are proven as on the first; then
// the TLS client names the number.
type further struct {
	waiting []*connection // proven, and at the TLS server chosen, for nobody yet
	calls   bucket        // TLS server: dialled at the client's word
	pause   time.Duration // TLS client: after the last that did not come
	after   time.Time     // and until when
}

// Of implements meeting.Leg: while TCP carries, more connections follow by number.
func (p *Path) Of(number uint16, kind wire.CarrierKind) (ways []path.Way, at []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.tcp.used, func(c *connection) bool { return !c.closed() })
	if kind != wire.CarrierTCP || i < 0 || p.Client && time.Now().Before(p.tcp.further.after) {
		return nil, nil
	}
	return []path.Way{&furtherWay{tcpWay{path: p, connection: number}, p.tcp.used[i].origin}}, []time.Duration{0}
}

// furtherWay is TCP from portal to portal, for a carrier that the TLS client has announced.
type furtherWay struct {
	tcpWay
	origin origin
}

// Dial implements path.StreamWay. It is called once, as the carrier's number is used once.
func (w *furtherWay) Dial(ctx context.Context) (net.Conn, error) {
	p := w.path
	ctx, cancel := context.WithTimeoutCause(ctx, furtherTime, errFurther)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	p.mu.Lock()
	err := p.callLocked(fail, w.origin, w.connection)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var c *connection
	err = p.until(ctx, func() (bool, error) {
		c = p.followerLocked(w.origin, w.connection)
		return c != nil, nil
	})
	p.mu.Lock()
	if p.Client {
		p.tcp.further.settle(err == nil, time.Now())
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c.origin = w.origin
	return w.take(c, binary.BigEndian.AppendUint16([]byte{chosenFurther}, w.connection))
}

// followerLocked takes the connection for a number, if it has come. What the server has dialled gets
// its number from the client, the newest first.
func (p *Path) followerLocked(of origin, number uint16) *connection {
	list := &p.tcp.further.waiting
	for i, c := range slices.Backward(*list) {
		if c.number == number || p.Client && !of.mine && c.number == leg.Meeting {
			*list = slices.Delete(*list, i, i+1)
			return c
		}
	}
	return nil
}

// settle notes whether a connection has come.
func (f *further) settle(came bool, now time.Time) {
	switch {
	case came:
		f.pause = 0
	case !now.Before(f.after): // not one of several at the same time
		f.pause = min(max(2*f.pause, firstFurther), lastFurther)
		f.after = now.Add(f.pause)
	}
}

// callLocked begins to dial a connection that follows the first, or to open the way for the other's. fail is called
// if no connection is to be expected any more.
func (p *Path) callLocked(fail context.CancelCauseFunc, of origin, number uint16) error {
	now := time.Now()
	switch {
	case p.ctx.Err() != nil:
		return ErrClosed
	case !p.Client && !of.mine && slices.ContainsFunc(p.tcp.further.waiting, func(c *connection) bool { return c.number == number }):
		return nil // it was quicker than the word that it comes
	case !p.Client && !p.tcp.further.mayCall(now):
		return errCalls
	}
	to, port := of.peer, above(of.own.Port(), number)
	if !of.mine {
		to, port = netip.AddrPortFrom(to.Addr(), above(to.Port(), number)), 0
		if p.search.bounds.refuses(to) != "" || !p.search.quota.spendSeveral(to, knockCost, now) {
			return nil // where nothing has to be opened it comes all the same
		}
	}
	p.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, knockTime)
		defer cancel()
		c, _, err := p.reach(ctx, to, port)
		switch {
		case err == nil:
			c.number = number
			p.proven(c)
		case of.mine && p.Client: // else one that was dialled for another number may get this
			fail(err)
		}
	})
	return nil
}

// mayCall reports whether the TLS server may dial once more at the client's word.
func (f *further) mayCall(now time.Time) bool {
	f.calls.settle(now, callRefill)
	if f.calls.spent >= callsAtOnce {
		return false
	}
	f.calls.spent++
	return true
}

// above is the port that far above another, coming around above the lowest that is probed.
func above(port, far uint16) uint16 {
	return uint16((uint32(max(port, minPort)-minPort)+uint32(far))%(1<<16-minPort)) + minPort
}
