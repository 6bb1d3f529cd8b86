package enrol

import (
	"net/netip"
	"time"

	"github.com/netport/netport/proto/wire"
)

const (
	// sourceTries is how many claims of one network (an IPv4 address or an IPv6 /64)
	// may have a wrong secret at once, and sourcePause how often another may. Claims
	// with a right one are not counted: a site enrols all its devices from one address.
	sourceTries = 20
	sourcePause = 3 * time.Second
	// tokenTries is how many claims of one token may have a wrong secret while the
	// server runs: whoever knows its id alone is guessing.
	tokenTries = 20
	// maxSources bounds the networks and tokens that are remembered.
	maxSources = 10_000
)

// attempts counts claims with wrong secrets.
type attempts struct {
	sources map[netip.Prefix]source
	tokens  map[wire.TokenID]int
}

// source is a bucket of failures: it is full when free lies in the future by
// sourceTries pauses.
type source struct{ free time.Time }

func newAttempts() attempts {
	return attempts{sources: make(map[netip.Prefix]source), tokens: make(map[wire.TokenID]int)}
}

func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

func (d *Desk) mayTry(now time.Time, c Claim) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attempts.tokens[c.ID] < tokenTries && d.attempts.sources[networkOf(c.From)].free.Sub(now) < sourceTries*sourcePause
}

func (d *Desk) failed(now time.Time, c Claim) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &d.attempts
	if len(a.sources) >= maxSources || len(a.tokens) >= maxSources {
		a.forget(now)
	}
	at := networkOf(c.From)
	s := a.sources[at]
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(sourcePause)
	a.sources[at] = s
	a.tokens[c.ID]++
}

// forget makes room: networks whose failures are over go, and all tokens. A flood
// from that many networks starts the counts anew; the secrets have 256 bits.
func (a *attempts) forget(now time.Time) {
	for at, s := range a.sources {
		if s.free.Before(now) {
			delete(a.sources, at)
		}
	}
	if len(a.sources) >= maxSources {
		clear(a.sources)
	}
	clear(a.tokens)
}
