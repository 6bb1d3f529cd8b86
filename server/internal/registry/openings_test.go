package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/server/internal/policy"
)

const requested = `domain = "example.org"
[[forward]]
name = "shell"
from = "ann tcp://127.0.0.1:22"
to = "plant tcp://127.0.0.1:22"
on_request = "8h"
hours = "mon-sun 00:00-24:00"
zone = "CET-1CEST,M3.5.0,M10.5.0/3"
`

func TestWhatWasAllowedIsOnDiskAndEndsByItself(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	if d := mustApply(t, r, requested); len(d.Added) > 0 {
		t.Errorf("granted before it was allowed: %v", d.Added)
	}
	o, d, err := r.Allow("shell", "", "cy", 2*time.Hour)
	if err != nil || len(d.Added) != 1 || !d.Added[0].End.Equal(now.Add(2*time.Hour)) {
		t.Fatalf("allowed: %+v, %v", d, err)
	}
	if d.Version != 2 || r.Applied().Cause != "forward shell allowed by cy" {
		t.Errorf("version %d, %s", d.Version, r.Applied().Cause)
	}
	s.Close()

	r, s = open(t, file)
	if got := r.Openings(); len(got) != 1 || got[0] != o {
		t.Errorf("after a restart %v, want %v", got, o)
	}
	if got := r.Of("ann", now.Add(2*time.Hour-time.Second)); len(got) != 1 {
		t.Errorf("a second before its end: %d grants", len(got))
	}
	if got := r.Of("ann", now.Add(2*time.Hour)); len(got) != 0 {
		t.Errorf("at its end: %d grants", len(got))
	}
	// Longer: another permission of the same pair.
	_, d, err = r.Allow("shell", "", "cy", 3*time.Hour)
	if err != nil || len(d.Added) != 1 || len(d.Removed) != 1 || !d.Added[0].SamePair(d.Removed[0]) {
		t.Errorf("allowed anew: %+v, %v", d, err)
	}
	// A new key of a portal keeps what is open, and so does a policy that has it.
	if d := enrol(t, r, 9, "ann", true); len(d.Added) != 1 || !d.Added[0].End.Equal(now.Add(3*time.Hour)) {
		t.Errorf("a new key: %+v", d)
	}
	if d := mustApply(t, r, requested+"\n# changed\n"); len(d.Added)+len(d.Removed) > 0 || d.Kept != 1 {
		t.Errorf("the same policy: %+v", d)
	}
	list, d, err := r.EndAllowed("shell", "bo")
	if err != nil || len(list) != 1 || list[0].By != "cy" || len(d.Removed) != 1 || len(r.Openings()) > 0 {
		t.Errorf("ended: %v, %+v, %v; left %v", list, d, err, r.Openings())
	}
	if _, _, err := r.EndAllowed("shell", "bo"); err == nil {
		t.Error("ended twice")
	}
	s.Close()
	r, _ = open(t, file)
	if got := r.Openings(); len(got) > 0 || len(r.Of("ann", now)) > 0 {
		t.Errorf("after it was ended and a restart: %v", got)
	}
}

func TestPolicyThatHasAForwardNoMoreForgetsWhatWasAllowed(t *testing.T) {
	r, _ := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, requested)
	if _, _, err := r.Allow("shell", "ann", "cy", 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	if d := mustApply(t, r, "domain = \"example.org\"\n"); len(d.Removed) != 1 {
		t.Errorf("removed %+v", d)
	}
	if d := mustApply(t, r, requested); len(d.Added) > 0 {
		t.Errorf("open again by itself: %+v", d.Added)
	}
}

func TestFullDiskAllowsNothing(t *testing.T) {
	r, s := open(t, create(t))
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	mustApply(t, r, requested)
	r.store = full{s}
	if _, d, err := r.Allow("shell", "", "cy", time.Hour); !errors.Is(err, errFull) || len(d.Added) > 0 {
		t.Errorf("allowed on a full disk: %+v, %v", d, err)
	}
	if len(r.Openings()) > 0 || len(r.Of("ann", now)) > 0 {
		t.Error("something is open")
	}
}

func TestNothingIsAllowedWithoutAPolicy(t *testing.T) {
	r, _ := open(t, create(t))
	if _, _, err := r.Allow("shell", "", "cy", time.Hour); err == nil || !strings.Contains(err.Error(), "no policy") {
		t.Errorf("allowed: %v", err)
	}
}

// TestHoursMeanTheSameAfterARestart opens a state whose zone no file of this machine
// has: the rule is the one that it was applied with.
func TestHoursMeanTheSameAfterARestart(t *testing.T) {
	file := create(t)
	r, s := open(t, file)
	enrol(t, r, 1, "ann", false)
	enrol(t, r, 2, "plant", false)
	text := strings.NewReplacer(`on_request = "8h"`, "", "CET-1CEST,M3.5.0,M10.5.0/3", "Mars/Olympus").Replace(requested)
	p, err := policy.ParseAgain("policy.toml", []byte(text), now, map[string]string{"Mars/Olympus": "<+03>-3"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(p, "policy.toml", []byte(text), false); err != nil {
		t.Fatal(err)
	}
	before := ids(r, "ann")
	s.Close()
	r, _ = open(t, file)
	enrol(t, r, 3, "bo", false) // compiles the policy again
	if after := ids(r, "ann"); len(after) != 1 || after["shell"] != before["shell"] {
		t.Errorf("grants %v, want %v", after, before)
	}
}
