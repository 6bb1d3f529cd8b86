// Package policy turns a policy file into what is granted.
//
// A policy is one TOML file: groups of portals, forwards, and tests of itself.
// What no forward allows is denied, so an empty policy denies all.
//
//	domain = "example.org"
//
//	[groups]
//	engineers = ["laptop-ann", "laptop-bo"]
//
//	[[forward]]
//	name = "plc-web"
//	from = "engineers tcp://127.0.0.1:8080"   # portal or group, and where it listens
//	to   = "factory-1 tcp://10.0.0.5:80"      # portal, and what it dials
//	until = 2027-01-31T18:00:00Z              # optional; with a zone
//	proxy_protocol = 2                        # optional; 1 or 2
//	relay = "relay-1"                         # optional; where its portals must meet
//
//	[[test]]
//	allow = "laptop-ann tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
//
// Groups and portals share one space of names, and groups hold portals only.
// Two portals meet once for all forwards between them, in either direction, so a
// relay that one of these names holds for all, and two may not name different ones.
// Nothing here depends on the order of the file. Every mistake is reported with
// file, line and column (package conffile). Parse judges the file alone; Grants
// adds who is enrolled.
package policy

import (
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
)

const (
	// MaxGrants is the most grants a policy may come to: forwards, each counted
	// once for every portal it is from. With MaxGrants a policy of 10 MB is
	// read, checked and signed in a few seconds.
	MaxGrants = 100_000
	// MaxPerPortal is the most grants that one portal may have part in: they
	// are sent to it whole, whenever it connects.
	MaxPerPortal = 10_000
	// maxWarnings is how many warnings are spelt out.
	maxWarnings = 50
)

// Forward is one forward of the policy.
type Forward struct {
	Name    string            `json:"name"`
	From    string            `json:"from"` // as written: a portal or a group
	Entries []string          `json:"entries"`
	Listen  endpoint.Endpoint `json:"listen"`
	Exit    string            `json:"exit"`
	Target  endpoint.Endpoint `json:"target"`
	Until   time.Time         `json:"until,omitzero"`
	Proxy   grant.Proxy       `json:"proxy_protocol,omitempty"`
	Relay   string            `json:"relay,omitempty"` // where its portals must meet

	key string // in the file
}

// Policy is a policy file that makes sense.
type Policy struct {
	Domain   string
	Groups   map[string][]string
	Forwards []Forward
	Warnings []string // one line each

	file    *conffile.File
	tests   []test
	allowed map[pair]time.Time // until when; zero: for ever
	pins    map[couple]pin
	used    []place // where each portal is first named
	relays  []place // where each relay is named
	skipped int     // warnings beyond maxWarnings
}

// pair is what a grant joins: all that a test can ask about.
type pair struct {
	entry  string
	listen endpoint.Endpoint
	exit   string
	target endpoint.Endpoint
}

func (p pair) String() string {
	return fmt.Sprintf("%s %s -> %s %s", p.entry, p.listen, p.exit, p.target)
}

type place struct{ name, key string }

// Parse reads the content of the policy file name. now decides whether a
// forward has ended.
func Parse(name string, data []byte, now time.Time) (*Policy, error) {
	var raw rawPolicy
	f, err := conffile.Parse(name, data, &raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{Domain: raw.Domain, file: f, allowed: make(map[pair]time.Time), pins: make(map[couple]pin)}
	for _, step := range []func(*rawPolicy, time.Time) error{p.readDomain, p.readGroups, p.readForwards, p.readTests} {
		if err := step(&raw, now); err != nil {
			return nil, err
		}
	}
	if len(p.Forwards) == 0 {
		p.warn("", "it has no forward: everything is denied")
	}
	return p, nil
}

// warn adds a warning about the value of a key.
func (p *Policy) warn(key, format string, args ...any) {
	if len(p.Warnings) == maxWarnings {
		p.skipped++
		return
	}
	err := p.file.Errorf(key, format, args...)
	text := err.Error()
	var at *conffile.Error
	if errors.As(err, &at) && at.Line > 0 {
		text = fmt.Sprintf("%s:%d:%d: %s", at.File, at.Line, at.Column, at.Text)
	}
	p.Warnings = append(p.Warnings, text)
}

// WarningLines returns the warnings, and one more line if some were left out.
func (p *Policy) WarningLines() []string {
	if p.skipped == 0 {
		return p.Warnings
	}
	return append(p.Warnings[:len(p.Warnings):len(p.Warnings)], fmt.Sprintf("%s: %d more warnings", p.file.Name, p.skipped))
}
