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
//
// These may be said of a forward:
//
//	to = ["factory-1 tcp://10.0.0.5:80", "factory-2 tcp://10.0.0.5:80"]
//	                                    # tried in this order, by who can be reached
//	from = "ann tcp://127.0.0.1:8000-8009"   # a range of ports: each leads to its
//	to = "plant tcp://10.0.0.5:9000-9009"    # own of a range that is as long
//	proxy_protocol = 2                  # 1 or 2: tells the target who the client is
//	until = 2027-01-31T18:00:00Z        # with a zone
//	hours = ["mon-fri 08:00-18:00", "sat,sun 22:00-06:00"]   # a night: into the next day
//	zone  = "Europe/Berlin"             # of the hours, UTC if left out; or a POSIX rule
//	rate = "10MB/s"                     # each way, all its streams together
//	streams = 20                        # at the same time
//	month = "50GB"                      # both ways together, in a month of UTC
//	clients = ["192.168.7.0/24"]        # who may connect where it listens
//	direct = "only"                     # or "never": by no relay, or by relays only
//	relay = "relay-1"                   # where its portals must meet
//	on_request = "8h"                   # grants nothing until it is allowed for a time,
//	                                    # of at most 8 hours (netport-server allow)
//
// Rates and volumes hold for one pair of portals and ends: one grant. Sizes are in B,
// kB, MB, GB, TB or in KiB, MiB, GiB, TiB. By which clock hours count, and what a
// change of clocks does to them, is said at grant.Hours.
//
// A test asks whether a pair of ends is allowed or denied:
//
//	[[test]]
//	allow = "laptop-ann tcp://127.0.0.1:8080 -> factory-1 tcp://10.0.0.5:80"
//	at = 2026-11-23T10:00:00+01:00      # as of then; as of now if left out
//	client = "192.168.7.9"              # for a client with this address
//	opened = true                       # after a forward on request was allowed
//
// Without a time the hours make no difference, and without a client the clients make
// none: what is allowed at some hour to some client is allowed.
//
// Groups and portals share one space of names, and groups hold portals only.
// Two portals meet once for all forwards between them, in either direction. So a
// relay that one of these names holds for all, and two may not name different ones;
// nor may one want direct paths only and another none.
// Nothing here depends on the order of the file, but which target is tried first.
// Every mistake is reported with file, line and column (package conffile). Parse
// judges the file alone; Grants adds who is enrolled, and what is open on request.
package policy

import (
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/server/internal/couple"
)

const (
	// MaxGrants is the most grants a policy may come to: forwards, each counted
	// once for every portal it is from, port and target. With MaxGrants a policy of
	// 10 MB is read, checked and signed in a few seconds.
	MaxGrants = 100_000
	// MaxPerPortal is the most grants that one portal may have part in: they
	// are sent to it whole, whenever it connects.
	MaxPerPortal = 10_000
	// MaxTargets is the most targets of a forward.
	MaxTargets = 16
	// maxWarnings is how many warnings are spelt out.
	maxWarnings = 50
)

// Forward is one forward of the policy.
type Forward struct {
	Name    string         `json:"name"`
	From    string         `json:"from"` // as written: a portal or a group
	Entries []string       `json:"entries"`
	Listen  endpoint.Range `json:"listen"`
	To      []Target       `json:"to"` // the first is tried first

	until     time.Time // zero: never
	proxy     grant.Proxy
	relay     string        // where its portals must meet
	onRequest time.Duration // for how long it may be allowed; 0: it always is
	terms     grant.Terms
	zone      string // of terms.Hours, as written
	key       string // in the file
}

// Target is where a forward leads.
type Target struct {
	Exit string         `json:"exit"`
	Dial endpoint.Range `json:"dial"`
}

// Policy is a policy file that makes sense.
type Policy struct {
	Domain   string
	Groups   map[string][]string
	Forwards []Forward
	Warnings []string // one line each

	file      *conffile.File
	tests     []test
	byName    map[string]int // forwards
	listeners map[listener]spot
	couples   map[couple.Portals]agreed
	zones     zones
	used      []place // where each portal is first named
	relays    []place // where each relay is named
	skipped   int     // warnings beyond maxWarnings
}

type place struct{ name, key string }

// Parse reads the content of the policy file name. now decides whether a
// forward has ended.
func Parse(name string, data []byte, now time.Time) (*Policy, error) {
	return ParseAgain(name, data, now, nil)
}

// ParseAgain is Parse for a policy that was read before: rules are what Zones
// returned then, so that it does not come to mean something else with the zone files
// of another machine or day.
func ParseAgain(name string, data []byte, now time.Time, rules map[string]string) (*Policy, error) {
	var raw rawPolicy
	f, err := conffile.Parse(name, data, &raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{
		Domain: raw.Domain, file: f,
		byName: make(map[string]int), listeners: make(map[listener]spot), couples: make(map[couple.Portals]agreed), zones: newZones(rules, now),
	}
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
	p.Warnings = append(p.Warnings, p.oneLine(key, format, args...))
}

// oneLine is a remark about the value of a key with its place, on one line.
func (p *Policy) oneLine(key, format string, args ...any) string {
	err := p.file.Errorf(key, format, args...)
	var at *conffile.Error
	if errors.As(err, &at) && at.Line > 0 {
		return fmt.Sprintf("%s:%d:%d: %s", at.File, at.Line, at.Column, at.Text)
	}
	return err.Error()
}

// WarningLines returns the warnings, and one more line if some were left out.
func (p *Policy) WarningLines() []string {
	if p.skipped == 0 {
		return p.Warnings
	}
	return append(p.Warnings[:len(p.Warnings):len(p.Warnings)], fmt.Sprintf("%s: %d more warnings", p.file.Name, p.skipped))
}
