package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/conffile"
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

// String returns "FORWARD", or "FORWARD=PORTAL" of one for one portal.
func (k OpeningKey) String() string {
	if k.Only == "" {
		return k.Forward
	}
	return k.Forward + "=" + k.Only
}

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

// Live returns those of the openings that may still grant something at the time now, and
// apart from them, by forward and portal, those that do no more: they are over, or of
// forwards that are not granted on request any more.
func (p *Policy) Live(open Openings, now time.Time) (live Openings, over []Opening) {
	live = make(Openings)
	for key, o := range open {
		if i, ok := p.byName[key.Forward]; ok && now.Before(o.ends(&p.Forwards[i])) {
			live[key] = o
		} else {
			over = append(over, o)
		}
	}
	slices.SortFunc(over, Opening.Compare)
	return live, over
}

// Compare orders openings by forward and portal.
func (o Opening) Compare(p Opening) int {
	return cmp.Or(cmp.Compare(o.Forward, p.Forward), cmp.Compare(o.Only, p.Only))
}

// Open makes an opening from now on.
func (p *Policy) Open(forward, only, by string, length time.Duration, now time.Time) (Opening, error) {
	since := now.UTC().Truncate(time.Second)
	o := Opening{Forward: forward, Only: only, Since: since, Until: since.Add(length.Truncate(time.Second)), By: by}
	if err := p.CheckOpening(o, now); err != nil {
		return Opening{}, err
	}
	return o, nil
}

// maxAhead is how far in the future an opening may begin: the clock of who made it may
// be ahead.
const maxAhead = 5 * time.Minute

// CheckOpening reports why the policy does not let an opening be made, at the time now.
func (p *Policy) CheckOpening(o Opening, now time.Time) error {
	i, ok := p.byName[o.Forward]
	if !ok {
		return fmt.Errorf("the policy has no forward %q", o.Forward)
	}
	f := &p.Forwards[i]
	if f.onRequest == 0 {
		return fmt.Errorf("forward %q is granted always: only one with on_request in the policy is allowed for a time", o.Forward)
	}
	if f.ended(now) {
		return fmt.Errorf("forward %q ended at %s", o.Forward, f.until.Format(time.RFC3339))
	}
	length := o.Until.Sub(o.Since)
	if length > f.onRequest {
		return fmt.Errorf("the policy allows forward %q for %s at a time, not for %s", o.Forward, conffile.FormatDuration(f.onRequest), conffile.FormatDuration(length))
	}
	if length < time.Second {
		return errors.New("it must be allowed for a second at least")
	}
	if o.Only != "" && !slices.Contains(f.Entries, o.Only) {
		return fmt.Errorf("forward %q is not from the portal %q", o.Forward, o.Only)
	}
	if o.Since.After(now.Add(maxAhead)) {
		return fmt.Errorf("it begins at %s only, by a clock that is ahead of this one", o.Since.Format(time.RFC3339))
	}
	return nil
}
