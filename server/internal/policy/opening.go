package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/server/internal/ca"
)

// Opening is that a forward on request was allowed for a time.
type Opening struct {
	Forward string    `json:"forward"`
	Only    string    `json:"only,omitempty"` // the one portal it is for; "": all that it is from
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"` // whole seconds
	By      string    `json:"by"`
}

// ends returns when the opening ends: when it was said to, but never after what the
// forward's on_request of now allows.
func (o Opening) ends(f *Forward) time.Time {
	if last := o.Since.Add(f.onRequest); last.Before(o.Until) {
		return last
	}
	return o.Until
}

// Openings are all that was allowed, by forward and portal.
type Openings map[OpeningKey]Opening

// OpeningKey names an opening: a forward has one for all, and one for each portal.
type OpeningKey struct{ Forward, Only string }

// Key returns what names o.
func (o Opening) Key() OpeningKey { return OpeningKey{o.Forward, o.Only} }

// end returns when a permission of f for one of its entries ends (zero: never), and
// whether there is one at the time now.
func (open Openings) end(f *Forward, entry string, now time.Time) (end time.Time, ok bool) {
	if f.onRequest == 0 {
		return f.until, true
	}
	for _, only := range []string{"", entry} {
		if o, ok := open[OpeningKey{f.Name, only}]; ok && o.ends(f).After(end) {
			end = o.ends(f)
		}
	}
	end = end.UTC().Truncate(time.Second)
	if !f.until.IsZero() && f.until.Before(end) {
		end = f.until
	}
	return end, now.Before(end)
}

// Live returns those of the openings that may still grant something at the time now:
// not those that are over, nor those of forwards that are not granted on request any
// more.
func (p *Policy) Live(open Openings, now time.Time) Openings {
	live := make(Openings)
	for key, o := range open {
		if i, ok := p.byName[key.Forward]; ok && now.Before(o.ends(&p.Forwards[i])) {
			live[key] = o
		}
	}
	return live
}

// Open makes an opening from now on.
func (p *Policy) Open(forward, only, by string, length time.Duration, now time.Time) (Opening, error) {
	i, ok := p.byName[forward]
	if !ok {
		return Opening{}, fmt.Errorf("the policy in force has no forward %q", forward)
	}
	f := &p.Forwards[i]
	if f.onRequest == 0 {
		return Opening{}, fmt.Errorf("forward %q is granted always: only one with on_request in the policy is allowed for a time", forward)
	}
	if f.ended(now) {
		return Opening{}, fmt.Errorf("forward %q ended at %s", forward, f.until.Format(time.RFC3339))
	}
	if length > f.onRequest {
		return Opening{}, fmt.Errorf("the policy allows forward %q for %s at a time, not for %s", forward, ca.FormatDuration(f.onRequest), ca.FormatDuration(length))
	}
	if length < time.Second {
		return Opening{}, errors.New("it must be allowed for a second at least")
	}
	if only != "" && !slices.Contains(f.Entries, only) {
		return Opening{}, fmt.Errorf("forward %q is not from the portal %q", forward, only)
	}
	since := now.UTC().Truncate(time.Second)
	return Opening{Forward: forward, Only: only, Since: since, Until: since.Add(length.Truncate(time.Second)), By: by}, nil
}
