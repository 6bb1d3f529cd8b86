package policy

import "time"

// couple is an unordered pair of portals.
type couple struct{ a, b string }

func coupleOf(a, b string) couple {
	if b < a {
		a, b = b, a
	}
	return couple{a, b}
}

// pin is the relay at which a couple must meet, by the forward that says so.
type pin struct {
	relay   string
	forward string
	until   time.Time // of the forward that lasts longest; zero: for ever
}

// pin notes the relay that f wants for its exit and one of its entries. Two
// forwards contradict each other even if one of them has ended: what a file says
// must not depend on the clock.
func (p *Policy) pin(entry string, f Forward) error {
	if f.Relay == "" {
		return nil
	}
	c := coupleOf(entry, f.Exit)
	old, ok := p.pins[c]
	switch {
	case !ok:
		p.pins[c] = pin{f.Relay, f.Name, f.Until}
	case old.relay != f.Relay:
		return p.file.Errorf(f.key+".relay", "forward %q: %s and %s meet at the relay %q for the forward %q: two portals meet at one relay for all that is between them",
			f.Name, entry, f.Exit, old.relay, old.forward)
	case f.Until.IsZero() || !old.until.IsZero() && f.Until.After(old.until):
		old.until = f.Until
		p.pins[c] = old
	}
	return nil
}

// Pin returns the relay at which alone two portals may meet at the time now, or
// "" if they may meet at any.
func (p *Policy) Pin(a, b string, now time.Time) string {
	if c, ok := p.pins[coupleOf(a, b)]; ok && (c.until.IsZero() || now.Before(c.until)) {
		return c.relay
	}
	return ""
}
