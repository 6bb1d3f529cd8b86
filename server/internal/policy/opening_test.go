package policy

import (
	"strings"
	"testing"
	"time"
)

const onRequest = `domain = "example.org"
groups = {g = ["ann", "bo"]}
[[forward]]
name = "shell"
from = "g tcp://127.0.0.1:22"
to = "plant tcp://127.0.0.1:22"
on_request = "8h"
until = 2026-11-22T18:00:00Z
[[forward]]
name = "always"
from = "ann tcp://127.0.0.1:80"
to = "plant tcp://127.0.0.1:80"
`

// ends returns when each grant of the forward "shell" ends, by its entry.
func ends(p *Policy, open Openings, now time.Time) map[string]time.Time {
	m := make(map[string]time.Time)
	for _, g := range p.Grants(keys("ann", "bo", "plant"), open, now) {
		if g.Forward == "shell" {
			m[g.Entry.Name] = g.End
		}
	}
	return m
}

func TestOpeningGrantsUntilItsEnd(t *testing.T) {
	p := parse(t, onRequest)
	allow := func(only string, length time.Duration) Opening {
		t.Helper()
		o, err := p.Open("shell", only, "cy", length, now)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	open := Openings{}
	want := func(what string, p *Policy, at time.Time, ann, bo time.Duration) {
		t.Helper()
		got := ends(p, open, at)
		for name, after := range map[string]time.Duration{"ann": ann, "bo": bo} {
			end, ok := got[name]
			if ok != (after > 0) || ok && !end.Equal(now.Add(after)) {
				t.Errorf("%s: the grant of %s ends at %v (%t), want %v after now", what, name, end, ok, after)
			}
		}
	}
	want("nothing allowed", p, now, 0, 0)
	o := allow("bo", 2*time.Hour)
	open[o.Key()] = o
	want("for bo", p, now, 0, 2*time.Hour)
	o = allow("", time.Hour)
	open[o.Key()] = o
	want("for all, too", p, now, time.Hour, 2*time.Hour)
	want("an hour later", p, now.Add(time.Hour), 0, 2*time.Hour)
	want("two hours later", p, now.Add(2*time.Hour), 0, 0)
	o = allow("", 8*time.Hour)
	open[o.Key()] = o
	want("longer than the forward lasts", p, now, 6*time.Hour, 6*time.Hour)

	// A policy that allows less counts for what was allowed before.
	shorter := parse(t, strings.Replace(onRequest, `"8h"`, `"30m"`, 1))
	want("with a shorter time", shorter, now, 30*time.Minute, 30*time.Minute)
	want("after it", shorter, now.Add(30*time.Minute), 0, 0)
	if live, over := shorter.Live(open, now.Add(30*time.Minute)); len(live) > 0 || len(over) != 2 || over[0].Only != "" || over[1].Only != "bo" {
		t.Errorf("still kept: %v; over: %v", live, over)
	}
	for what, text := range map[string]string{
		"granted always now": strings.Replace(onRequest, `on_request = "8h"`, "", 1),
		"renamed":            strings.Replace(onRequest, `"shell"`, `"ssh"`, 1),
	} {
		if live, over := parse(t, text).Live(open, now); len(live) > 0 || len(over) != 2 {
			t.Errorf("%s: still kept: %v", what, live)
		}
	}
	if live, over := p.Live(open, now); len(live) != 2 || len(over) > 0 {
		t.Errorf("kept %v, want both", live)
	}
}

func TestOnlyWhatThePolicySaysIsAllowed(t *testing.T) {
	p := parse(t, onRequest)
	for _, c := range []struct {
		forward, only string
		length        time.Duration
		at            time.Time
		want          string
	}{
		{"shel", "", time.Hour, now, `has no forward "shel"`},
		{"always", "", time.Hour, now, `"always" is granted always`},
		{"shell", "", 8*time.Hour + time.Second, now, `allows forward "shell" for 8h at a time`},
		{"shell", "", 0, now, "for a second at least"},
		{"shell", "", -time.Hour, now, "for a second at least"},
		{"shell", "cy", time.Hour, now, `is not from the portal "cy"`},
		{"shell", "plant", time.Hour, now, `is not from the portal "plant"`},
		{"shell", "g", time.Hour, now, `is not from the portal "g"`},
		{"shell", "", time.Hour, now.Add(6 * time.Hour), `ended at 2026-11-22T18:00:00Z`},
	} {
		if o, err := p.Open(c.forward, c.only, "cy", c.length, c.at); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %v: %+v, %v; want %s", c.forward, c.length, o, err, c.want)
		}
	}
}

// TestOpeningMadeElsewhereIsWithinThePolicy: who signs what another machine has noted
// takes nothing that he could not have allowed himself.
func TestOpeningMadeElsewhereIsWithinThePolicy(t *testing.T) {
	p := parse(t, onRequest)
	o, err := p.Open("shell", "bo", "cy", 8*time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Opening){
		"longer":        func(o *Opening) { o.Until = o.Until.Add(time.Second) },
		"without end":   func(o *Opening) { o.Until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"later":         func(o *Opening) { o.Since, o.Until = o.Since.Add(time.Hour), o.Until.Add(time.Hour) },
		"never":         func(o *Opening) { o.Until = o.Since },
		"another's":     func(o *Opening) { o.Only = "plant" },
		"granted":       func(o *Opening) { o.Forward = "always" },
		"not there":     func(o *Opening) { o.Forward = "shel" },
		"from long ago": func(o *Opening) { o.Since = o.Since.Add(-time.Hour) },
	} {
		other := o
		if change(&other); p.CheckOpening(other, now) == nil {
			t.Errorf("%s: %+v passes", what, other)
		}
	}
	if err := p.CheckOpening(o, now.Add(-time.Minute)); err != nil {
		t.Errorf("by a clock that is a minute behind: %v", err)
	}
}
