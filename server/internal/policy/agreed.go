package policy

import (
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/server/internal/couple"
)

// agreed is what the forwards between two portals say of where and how they meet, by the
// forwards that say so. Two forwards contradict each other even if one of them has
// ended, or is granted on request only: what a file says must not depend on the clock.
type agreed struct {
	relay, relayBy string
	relayUntil     time.Time // of the forward that lasts longest; zero: for ever
	direct         grant.Direct
	directBy       string
}

// agree notes what f says of its exits and one of its entries.
func (p *Policy) agree(entry string, f *Forward) error {
	if f.relay == "" && f.terms.Direct == grant.DirectAny {
		return nil
	}
	for _, to := range f.leads(entry) {
		c := couple.Of(entry, to.Exit)
		a := p.couples[c]
		switch {
		case f.relay == "":
		case a.relay == "":
			a.relay, a.relayBy, a.relayUntil = f.relay, f.Name, f.until
		case a.relay != f.relay:
			return p.file.Errorf(f.key+".relay", "forward %q: %s and %s meet at the relay %q for the forward %q: two portals meet at one relay for all that is between them",
				f.Name, entry, to.Exit, a.relay, a.relayBy)
		case f.until.IsZero() || !a.relayUntil.IsZero() && f.until.After(a.relayUntil):
			a.relayUntil = f.until
		}
		switch d := f.terms.Direct; {
		case d == grant.DirectAny:
		case a.direct == grant.DirectAny:
			a.direct, a.directBy = d, f.Name
		case a.direct != d:
			return p.file.Errorf(f.key+".direct", "forward %q: direct is %q between %s and %s for the forward %q: two portals are joined in one way for all that is between them",
				f.Name, a.direct, entry, to.Exit, a.directBy)
		}
		p.couples[c] = a
	}
	return nil
}

// Pin returns the relay at which alone two portals may meet at the time now, or
// "" if they may meet at any.
func (p *Policy) Pin(a, b string, now time.Time) string {
	if c := p.couples[couple.Of(a, b)]; c.relayUntil.IsZero() || now.Before(c.relayUntil) {
		return c.relay
	}
	return ""
}
