package strict

import (
	"crypto/ed25519"
	"fmt"
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

// Result is what came of it. With strangers, tests that fail, nothing is signed.
type Result struct {
	Signed    Signed
	Known     Known // after it
	Grants    int
	Strangers []Stranger
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
	keys, portals := make(map[string]identity.KeyHash), make([]registry.Portal, len(q.Portals))
	for i, e := range q.Portals {
		keys[e.Name] = e.Key
		portals[i] = registry.Portal{Name: e.Name, Enrolment: registry.Enrolment{Key: e.Key, Next: e.Next}}
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
	if r.Known, r.Strangers, err = j.Known.learn(q, authorities, j.Accepted); err != nil || len(r.Strangers)+len(r.Failed) > 0 {
		return r, err
	}
	r.Known.Version = max(q.Version, j.Known.Version+1)
	list := registry.Permissions(p, portals, now)
	for i := range list {
		list[i].Version = r.Known.Version
	}
	body := Body{
		Domain: q.Domain, Version: r.Known.Version, Time: now.UTC().Truncate(time.Second), File: j.File, Source: string(j.Source),
		Zones: p.Zones(), Authorities: authorities.Sign(j.Key).AppendTo(nil),
	}
	for _, g := range registry.Sign(list, j.Key) {
		body.Grants = append(body.Grants, g.AppendTo(nil))
	}
	r.Grants = len(list)
	r.Signed, err = seal(body, j.Key)
	return r, err
}
