package direct

import (
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
)

// Peer takes the candidates that the peer has told; they take the place of those before.
func (p *Path) Peer(list []wire.Candidate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given = slices.Clone(list[:min(len(list), wire.MaxCandidates)])
	p.listLocked(time.Now())
	p.wake()
}

// Here takes that the peer is proven to run on this machine: loopback addresses lead to it.
// It must not be said on the peer's word alone.
func (p *Path) Here() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.here {
		return
	}
	p.here = true
	p.stale.Store(true)
	p.search.bounds.loopback = true
	p.listLocked(time.Now())
	p.wake()
}

func (p *Path) listLocked(now time.Time) {
	p.refused = append(p.search.list(p.given, now), p.listTCPLocked(now)...)
	for _, r := range p.refused {
		p.log.Debug("candidate of the peer not probed", "address", r.Candidate.Addr.String(), "reason", r.Why)
	}
}

// offer tells the peer this portal's addresses if they are others than before.
func (p *Path) offer() {
	if !p.stale.Swap(false) {
		return
	}
	p.mu.Lock()
	seen, here := p.seenLocked(), p.here
	p.mu.Unlock()
	list, hosts := p.finder.own(seen, here)
	b := p.finder.bounds(here)
	b.own = hosts
	p.mu.Lock()
	list = list[:min(len(list), wire.MaxCandidates)]
	changed := !p.told || !slices.Equal(list, p.offered)
	p.offered, p.told = list, true
	b.loopback = p.here // it may have been proven meanwhile
	// The server's word, too, has this looked at, which is to ask nobody anew by itself.
	if changed || !b.equal(p.search.bounds) {
		p.search.bounds = b
		p.listLocked(time.Now())
	}
	p.mu.Unlock()
	if changed {
		p.Offer(list)
	}
}

// seenLocked returns where the peer has seen this portal.
func (p *Path) seenLocked() (list []wire.Candidate) {
	for _, x := range p.search.pairs {
		if x.seen.IsValid() {
			list = append(list, wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginReflexive, Addr: x.seen})
		}
	}
	for _, k := range p.tcp.knocks {
		if k.seen.IsValid() {
			list = append(list, wire.Candidate{Transport: wire.CandidateTCP, Origin: wire.OriginReflexive, Addr: k.seen})
		}
	}
	return list
}
