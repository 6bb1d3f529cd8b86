package strict

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
)

// maxSkip is how far ahead of the last version that was signed a server may ask for:
// one that asks for the highest there is would have none left after it.
const maxSkip = 1_000_000

// Job is one signing.
type Job struct {
	Request  Request
	File     string // of the policy, as the operator named it
	Source   []byte
	Key      ed25519.PrivateKey
	Known    Known
	Accepted Accepted
}

// Result is what came of it. With strangers, or tests that fail, nothing is signed. What
// is later or closed is left out of what is signed.
type Result struct {
	Signed    Signed
	Known     Known // after it
	Grants    int
	Strangers []Stranger
	Later     []Stranger       // second keys
	Closed    []policy.Opening // that were not accepted
	Opened    []policy.Opening
	Failed    []string // tests of the policy
	Warnings  []string
}

// Sign signs what the operator's policy says for the portals of a request, and nothing
// else.
func (j Job) Sign(now time.Time) (Result, error) {
	q := j.Request
	if err := j.Known.check(q, grant.FormatKey(j.Key.Public().(ed25519.PublicKey))); err != nil {
		return Result{}, err
	}
	if q.Version > j.Known.Version+maxSkip {
		return Result{}, fmt.Errorf("the server asks for version %d, and version %d was signed last: that is too far ahead", q.Version, j.Known.Version)
	}
	authorities, err := wire.ParseAuthorities(q.Authorities)
	if err != nil {
		return Result{}, fmt.Errorf("the authorities of the request are broken: %w", err)
	}
	p, err := policy.Parse(j.File, j.Source, now)
	if err != nil {
		return Result{}, err
	}
	keys := make(map[string]identity.KeyHash)
	for _, e := range q.Portals {
		keys[e.Name] = e.Key
	}
	relays := make(map[string]bool)
	for _, name := range q.Relays {
		relays[name] = true
	}
	if err := p.CheckNames(q.Domain, keys, func(name string) bool { return relays[name] }); err != nil {
		return Result{}, err
	}
	r := Result{Warnings: p.WarningLines()}
	for _, err := range p.Test(now) {
		r.Failed = append(r.Failed, err.Error())
	}
	r.Known, r.Strangers, r.Later, err = j.Known.learn(q, authorities, j.Accepted)
	if err == nil {
		r.Opened, r.Closed, err = j.openings(p, now)
	}
	if err != nil || len(r.Strangers)+len(r.Failed) > 0 {
		return r, err
	}
	portals, open := make([]registry.Portal, len(q.Portals)), make(policy.Openings)
	for i, e := range q.Portals {
		portals[i] = registry.Portal{Name: e.Name, Enrolment: registry.Enrolment{Key: e.Key}}
		if slices.Contains(r.Known.Portals[e.Name], e.Next) {
			portals[i].Next = e.Next
		}
	}
	for _, o := range r.Opened {
		open[o.Key()] = o
	}
	r.Known.Version = max(q.Version, j.Known.Version+1)
	list := registry.Permissions(p, portals, open, now)
	for i := range list {
		list[i].Version = r.Known.Version
	}
	body := Body{
		Domain: q.Domain, Version: r.Known.Version, Time: now.UTC().Truncate(time.Second), File: j.File, Source: string(j.Source),
		Zones: p.Zones(), Authorities: authorities.Sign(j.Key).AppendTo(nil),
		Complete: wire.GrantsComplete{Version: r.Known.Version}.Sign(j.Key).AppendTo(nil),
	}
	for _, e := range q.Portals {
		body.For = append(body.For, registry.SignedPortal{Name: e.Name, Keys: r.Known.Portals[e.Name]})
	}
	for _, g := range registry.Sign(list, j.Key) {
		body.Grants = append(body.Grants, g.AppendTo(nil))
	}
	r.Grants = len(list)
	r.Signed, err = seal(body, j.Key)
	return r, err
}

// openings divides the openings of the request into those that are accepted, which the
// policy must allow, and the others.
func (j Job) openings(p *policy.Policy, now time.Time) (opened, closed []policy.Opening, err error) {
	asked := make(map[policy.OpeningKey]bool)
	for _, o := range j.Request.Openings {
		asked[o.Key()] = true
		if !slices.Contains(j.Accepted.Openings, o.Key()) {
			closed = append(closed, o)
			continue
		}
		if err := p.CheckOpening(o, now); err != nil {
			return nil, nil, fmt.Errorf("allow forward %s: %w", o.Forward, err)
		}
		opened = append(opened, o)
	}
	for _, k := range j.Accepted.Openings {
		if !asked[k] {
			return nil, nil, fmt.Errorf("allow forward %s: the request does not ask for that: has it ended, or was it signed already?", k)
		}
	}
	return opened, closed, nil
}
