package direct

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/portal/internal/outside"
	"github.com/netport/netport/proto/wire"
)

// State is what a Path knows now, for people.
type State struct {
	NAT     outside.Mapping  // of this portal
	Own     []wire.Candidate // this portal's, as the peer was told
	Tries   []Try            // the peer's addresses
	Refused []Refusal        // candidates of the peer that are never probed
}

// Try is one address of the peer.
type Try struct {
	Transport wire.CandidateTransport
	Addr      netip.AddrPort
	Origin    wire.CandidateOrigin // 0: the peer has not named it, a probe of it has come from there
	// Use says in a few words how it stands there: "in use", "open", "asking",
	// "no answer", or why nothing is sent.
	Use      string
	RTT      time.Duration // 0: not known
	Asked    int           // probes sent
	Answered int
	Heard    bool // probes of the peer have come from there
}

// Refusal is a candidate that is never probed, and why.
type Refusal struct {
	Candidate wire.Candidate
	Why       string
}

// State returns what is known now.
func (p *Path) State() State {
	mapping, now := p.finder.NAT(), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{NAT: mapping, Own: p.offered, Refused: p.refused}
	for _, x := range p.search.pairs {
		s.Tries = append(s.Tries, Try{
			Transport: wire.CandidateUDP, Addr: x.addr, Origin: x.origin, Use: x.use(now), RTT: x.rtt, Asked: x.asked, Answered: x.answers, Heard: !x.heard.IsZero(),
		})
	}
	for _, k := range p.tcp.knocks {
		s.Tries = append(s.Tries, Try{Transport: wire.CandidateTCP, Addr: k.addr, Origin: k.origin, Use: p.useLocked(k), RTT: k.rtt, Asked: k.asked})
	}
	return s
}

func (p *Path) useLocked(k *knock) string {
	switch {
	case slices.ContainsFunc(p.tcp.used, func(c *connection) bool { return c.origin.peer == k.addr }):
		return "in use"
	case k.starve:
		return starved
	case k.dialled:
		return "asking"
	case k.opened && k.err == nil:
		return "open"
	case k.err != nil:
		return k.err.Error()
	}
	return "not asked yet"
}

const starved = "no answer to as many probes as one peer may cause; asked again later"

func (p *pair) use(now time.Time) string {
	switch {
	case p.carries() && p.dead():
		return "in use, no answer"
	case p.carries():
		return "in use"
	case p.open(now) && now.Before(p.until):
		return "open, but no connection came up"
	case p.starve:
		return starved
	case !p.answered.IsZero() && now.Sub(p.answered) <= pauses[len(pauses)-1]+freshTime:
		return "open"
	case p.tries < burst:
		return "asking"
	}
	return "no answer"
}
