package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/wire"
)

// Answer says whether the policy allows a pair of ends, and why.
type Answer struct {
	Allowed bool        `json:"allowed"`
	Reason  wire.Reason `json:"-"`
	Why     string      `json:"why"` // in words; where it is denied, what is missing
	Portals [2]string   `json:"-"`   // of the pair
	// Forward is the forward that joins the pair or, where none does, the nearest one;
	// "" if none is near. Place is FILE:LINE:COLUMN of it.
	Forward string   `json:"forward,omitempty"`
	Place   string   `json:"place,omitempty"`
	Says    []string `json:"says,omitempty"` // of the forward, beside its ends
	// Next is when the answer may change by itself; zero: never.
	Next time.Time `json:"next,omitzero"`
}

// conditions are under which a pair is judged.
type conditions struct {
	at      time.Time
	anyHour bool       // hours make no difference
	client  netip.Addr // zero: clients make no difference
	opened  bool       // what is granted on request was allowed
	open    Openings   // or this was
}

// Explain says whether the policy allows a pair of ends, written as in a test, at a
// time for a client (the zero Addr for any), and by which forward.
func (p *Policy) Explain(text string, at time.Time, client netip.Addr, open Openings) (Answer, error) {
	w, err := p.parsePair(text)
	if err != nil {
		return Answer{}, err
	}
	a := p.judge(w, conditions{at: at, client: client, open: open})
	a.Portals = [2]string{w.entry, w.exit}
	if a.Forward == "" {
		p.nearest(w, &a)
	}
	return a, nil
}

// judge answers for one pair. It looks at no more than one forward.
func (p *Policy) judge(w pair, c conditions) Answer {
	f, rank, ok := p.find(w)
	if !ok {
		return Answer{Reason: wire.ReasonNotGranted, Why: "no forward allows it"}
	}
	a := Answer{Forward: f.Name, Place: p.placeOf(f), Says: f.Says()}
	end, open := c.open.end(f, w.entry, c.at)
	if c.opened && f.onRequest > 0 {
		end, open = f.until, true
	}
	deny := func(reason wire.Reason, next time.Time, format string, args ...any) Answer {
		a.Reason, a.Next, a.Why = reason, next, fmt.Sprintf(format, args...)
		return a
	}
	hours := f.terms.Hours
	switch {
	case f.ended(c.at):
		return deny(wire.ReasonGrantExpired, time.Time{}, "the forward ended at %s", f.until.Format(time.RFC3339))
	case !open:
		return deny(wire.ReasonNotGranted, time.Time{}, "the forward is granted on request only, and nobody has allowed it (netport-server allow %s --for TIME --by NAME)", f.Name)
	case !c.anyHour && !hours.Open(c.at):
		next := hours.Next(c.at)
		return deny(wire.ReasonOutsideHours, next, "it is outside the hours of the forward (%s), which are next at %s", hoursText(hours, f.zone), next.Format(time.RFC3339))
	case c.client.IsValid() && !f.terms.Clients.Allow(c.client):
		return deny(wire.ReasonClientForbidden, time.Time{}, "the forward is for the clients %s, not for %s", f.terms.Clients, c.client)
	}
	a.Allowed, a.Next = true, end
	if next := hours.Next(c.at); !c.anyHour && !next.IsZero() && (end.IsZero() || next.Before(end)) {
		a.Next = next
	}
	a.Why = fmt.Sprintf("the forward %q allows it", f.Name)
	if len(f.To) > 1 {
		a.Why += fmt.Sprintf(", as number %d of its %d targets", rank+1, len(f.To))
	}
	return a
}

func (p *Policy) placeOf(f *Forward) string { return p.file.Place(f.key + ".name") }

// parsePair reads "PORTAL ENDPOINT -> PORTAL ENDPOINT".
func (p *Policy) parsePair(text string) (w pair, err error) {
	from, to, ok := strings.Cut(text, "->")
	if !ok {
		return w, fmt.Errorf("%.200q is not \"PORTAL ENDPOINT -> PORTAL ENDPOINT\"", text)
	}
	for _, end := range []struct {
		text string
		name *string
		at   *endpoint.Endpoint
	}{{from, &w.entry, &w.listen}, {to, &w.exit, &w.target}} {
		name, ends, err := parseEnd(end.text)
		switch {
		case err != nil:
			return w, err
		case ends.Ports > 1:
			return w, fmt.Errorf("%s is a range: ask for one port", ends)
		case p.Groups[name] != nil:
			return w, fmt.Errorf("%q is a group: ask for a portal", name)
		}
		*end.name, *end.at = name, ends.First
	}
	return w, nil
}

// nearest adds to an answer which forward has most in common with the pair. It looks
// at all of them.
func (p *Policy) nearest(w pair, a *Answer) {
	var best *Forward
	var has likeness
	for i := range p.Forwards {
		f := &p.Forwards[i]
		for _, to := range f.To {
			if l := f.compare(w, to); l.count() > max(1, has.count()) { // one thing in common is not near
				best, has = f, l
			}
		}
	}
	if best == nil {
		return
	}
	var other []string
	for i, text := range []string{"is from " + best.From, "listens at " + best.Listen.String(), "leads to " + has.exit, "dials " + has.target.String()} {
		if !has.same[i] {
			other = append(other, text)
		}
	}
	a.Forward, a.Place, a.Says = best.Name, p.placeOf(best), best.Says()
	a.Why = fmt.Sprintf("no forward allows it; the nearest is %q, which %s", best.Name, strings.Join(other, " and "))
}

// likeness is what of a pair a forward has, and where it leads.
type likeness struct {
	same   [4]bool // entry, listener, exit, target
	exit   string
	target endpoint.Endpoint
}

func (l likeness) count() (n int) {
	for _, same := range l.same {
		if same {
			n++
		}
	}
	return n
}

func (f *Forward) compare(w pair, to Target) likeness {
	at, target := f.Listen.First, to.Dial.First
	if n := int(w.listen.Port()) - int(at.Port()); n > 0 && n < f.Listen.Ports {
		at, target = f.Listen.At(n), to.Dial.At(n)
	}
	return likeness{[4]bool{slices.Contains(f.Entries, w.entry), at == w.listen, to.Exit == w.exit, target == w.target}, to.Exit, target}
}
