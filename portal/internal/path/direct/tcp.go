package direct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

const (
	// knockTime is how long a connection may take: the first SYN, and another one.
	knockTime = 2500 * time.Millisecond
	// knockCost is how many probes a try counts for: two SYNs, or a whole connection.
	knockCost = 4
	// secondKnock is when the first try goes on from a second port, which is besideDoor above the door's: no number of a
	// further connection. By then the other portal has had the time that the relay takes longer than the direct way.
	secondKnock = 100 * time.Millisecond
	besideDoor  = 1 << 10
	// usedCheck is how often it is looked whether the connections in use were closed.
	usedCheck = 5 * time.Second
)

// knockPauses are those after tries at a door that does not open. The first is at once: where
// UDP is blocked nothing else comes up, and where it is not both do.
var knockPauses = [...]time.Duration{
	500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
	15 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
}

// knock is an address of the peer's door.
type knock struct {
	addr    netip.AddrPort
	origin  wire.CandidateOrigin
	listed  bool
	dialled bool // a try is under way
	opened  bool // it was the peer's, once
	starve  bool
	tries   int // since the search began anew
	asked   int
	due     time.Time
	err     error // of the last try
	rtt     time.Duration
	seen    netip.AddrPort
}

// tcp is what a Path has over TCP. The Path's lock guards it.
type tcp struct {
	knocks  []*knock
	proven  []*connection // TLS server: not chosen by the client yet
	waiting []*connection // for the way of a first carrier
	used    []*connection // that carriers are on
	further further
}

// listTCPLocked takes the peer's candidates for TCP.
func (p *Path) listTCPLocked(now time.Time) (refused []Refusal) {
	for _, k := range p.tcp.knocks {
		k.listed = false
	}
	for _, c := range p.given {
		if c.Transport != wire.CandidateTCP {
			continue
		}
		c.Addr = netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())
		if why := p.search.bounds.refuses(c.Addr); why != "" {
			refused = append(refused, Refusal{c, why})
			continue
		}
		i := slices.IndexFunc(p.tcp.knocks, func(k *knock) bool { return k.addr == c.Addr })
		if i < 0 {
			i = len(p.tcp.knocks)
			p.tcp.knocks = append(p.tcp.knocks, &knock{addr: c.Addr, due: now})
		}
		p.tcp.knocks[i].origin, p.tcp.knocks[i].listed = c.Origin, true
	}
	p.tcp.knocks = slices.DeleteFunc(p.tcp.knocks, func(k *knock) bool { return !k.listed && !k.dialled })
	return refused
}

func (p *Path) restartTCPLocked(now time.Time) {
	for _, k := range p.tcp.knocks {
		k.tries, k.due, k.starve = 0, now, false
	}
	p.tcp.further.pause, p.tcp.further.after = 0, time.Time{}
}

// knockLocked begins the tries that are due and returns when to call again.
func (p *Path) knockLocked(now time.Time) (again time.Time) {
	again = now.Add(knockPauses[len(knockPauses)-1])
	carried := len(p.tcp.used) > 0
	p.tcp.used = slices.DeleteFunc(p.tcp.used, (*connection).closed)
	switch {
	case len(p.tcp.used) > 0:
		return now.Add(usedCheck)
	case carried:
		p.restartTCPLocked(now)
		p.firstLocked()
		p.tellLocked()
	}
	if len(p.tcp.waiting) > 0 {
		return again
	}
	for _, k := range p.tcp.knocks {
		if k.dialled {
			continue
		}
		if !now.Before(k.due) {
			k.due = now.Add(knockPauses[min(k.tries, len(knockPauses)-1)])
			first, cost := k.tries == 0, knockCost
			if first {
				cost *= 2
			}
			if k.starve = !k.opened && !p.search.quota.spendSeveral(k.addr, cost, now); !k.starve {
				k.tries++
				k.asked++
				k.dialled = true
				p.tasks.Go(func() { p.knock(k, first) })
				continue
			}
			k.due = now.Add(starvedPause)
		}
		again = earlier(again, k.due)
	}
	return again
}

// knock tries an address, and the first time from a second port as well. A NAT that lets in whom it has sent to
// drops what comes before, and TCP repeats a SYN only after a second. Where this portal's NAT has another port for
// each address, no SYN but its own can get through, and it sends that when the other portal hears where to
// send one, so a moment too early.
func (p *Path) knock(k *knock, first bool) {
	ctx, cancel := context.WithTimeout(p.ctx, knockTime)
	defer cancel()
	var second sync.WaitGroup
	came := false
	if d := p.finder.door(k.addr.Addr()); first && d != nil {
		second.Go(func() {
			select {
			case <-time.After(secondKnock):
				if came = p.try(ctx, k, above(d.port, besideDoor)) == nil; came {
					cancel()
				}
			case <-ctx.Done():
			}
		})
	}
	err := p.try(ctx, k, 0)
	cancel() // what has not connected yet
	second.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.dialled = false; !came {
		k.err = err
	}
	p.wake()
}

// try tries an address once, from the door or, if port is not 0, from there.
func (p *Path) try(ctx context.Context, k *knock, port uint16) error {
	began := time.Now()
	conn, seen, err := p.reach(ctx, k.addr, port)
	if err != nil {
		return err
	}
	p.mu.Lock()
	k.opened, k.err, k.rtt = true, nil, time.Since(began)/2
	if port == 0 {
		k.seen = seen
	}
	p.search.quota.answered(k.addr, time.Now())
	p.stale.Store(true)
	p.mu.Unlock()
	p.log.Debug("direct TCP connection", "address", k.addr.String())
	p.proven(conn)
	return nil
}

var errNoDoor = errors.New("no TCP port is open for direct ways")

// reach connects to an address, from a local port or, if that is 0, from the door, and proves
// both ends; seen is where the other saw this one.
func (p *Path) reach(ctx context.Context, to netip.AddrPort, port uint16) (conn *connection, seen netip.AddrPort, err error) {
	d := p.finder.door(to.Addr())
	if d == nil {
		return nil, seen, errNoDoor
	}
	var dialled *net.TCPConn
	if port == 0 {
		dialled, err = d.dial(ctx, to, d.port)
	} else {
		dialled, err = d.dialBeside(ctx, to, port)
	}
	if err != nil {
		return nil, seen, err
	}
	stop := context.AfterFunc(p.ctx, func() { dialled.Close() })
	dialled.SetDeadline(time.Now().Add(greetTime))
	seen, both, err := p.ask(dialled)
	if err == nil && !stop() {
		err = ErrClosed
	}
	if err != nil {
		stop()
		dialled.Close()
		return nil, seen, fmt.Errorf("prove the peer at %v: %w", to, err)
	}
	return newConnection(dialled, !both || p.Client), seen, nil
}

// ask proves this portal on a connection that it has dialled, and has the other prove
// itself. If that has dialled it too (both), it asks as well.
func (p *Path) ask(conn *net.TCPConn) (seen netip.AddrPort, both bool, err error) {
	token := rand.Uint64()
	p.mu.Lock()
	ask := p.packLocked(netip.AddrPort{}, probe.Probe{Echo: leg.Echo{Token: token, Interval: p.finder.Paths.Interval()}})
	p.mu.Unlock()
	if _, err := conn.Write(ask.b); err != nil {
		return seen, both, err
	}
	b := make([]byte, probe.Len)
	for range 2 {
		if _, err := io.ReadFull(conn, b); err != nil {
			return seen, both, err
		}
		if id, _ := probe.IDOf(b); id != p.own {
			return seen, both, wire.ErrMalformed
		}
		m, err := probe.Open(b, p.Keys.Key)
		switch {
		case err != nil:
			return seen, both, err
		case m.Echo.Answer && m.Echo.Token == token:
			return m.Seen, both, nil
		case m.Echo.Answer || !p.admit(conn, b):
			return seen, both, wire.ErrMalformed
		}
		both = true
	}
	return seen, both, wire.ErrMalformed
}

// admit takes the probe that a connection has begun with, and answers it. It reports
// whether it is the peer that asks.
func (p *Path) admit(conn *net.TCPConn, b []byte) bool {
	m, err := probe.Open(b, p.Keys.Key)
	if err != nil || m.Echo.Answer {
		return false
	}
	from := addrOf(conn.RemoteAddr())
	p.mu.Lock()
	if p.ctx.Err() != nil || p.search.bounds.refuses(from) != "" || !p.freshLocked(m.Counter, time.Now()) {
		p.mu.Unlock()
		return false
	}
	answer := p.packLocked(from, probe.Probe{Echo: leg.Echo{Answer: true, Token: m.Echo.Token, Interval: p.finder.Paths.Interval()}, Seen: from})
	p.mu.Unlock()
	_, err = conn.Write(answer.b)
	return err == nil
}
