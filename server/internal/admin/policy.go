package admin

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
)

// What is to be done with a policy: each step includes those before it.
const (
	PolicyCheck = "check"
	PolicyTest  = "test"
	PolicyApply = "apply"
)

// PolicyRequest asks to check, test or apply a policy.
type PolicyRequest struct {
	Step   string `json:"step"`
	File   string `json:"file"` // as the operator named it
	Source string `json:"source"`
	// Anew has apply sign all permissions anew: portals take them back though they had
	// lost them.
	Anew bool `json:"anew,omitempty"`
}

// PolicyResult says what came of it. A policy with failed tests is not applied.
type PolicyResult struct {
	Forwards int      `json:"forwards"`
	Grants   int      `json:"grants"`
	Tests    int      `json:"tests"`
	Failed   []string `json:"failed"` // tests, each with its place in the file
	Warnings []string `json:"warnings"`
	// Of apply.
	Applied   bool   `json:"applied"`
	Version   uint64 `json:"version,omitempty"`
	Added     int    `json:"added"`
	Removed   int    `json:"removed"`
	Unchanged int    `json:"unchanged"`
}

// Policy checks, tests or applies a policy.
func (s *Service) Policy(ctx context.Context, r PolicyRequest) (PolicyResult, error) {
	s.change.Lock()
	defer s.change.Unlock()
	if r.Step == PolicyApply && s.Registry.Strict() {
		return PolicyResult{}, fmt.Errorf("apply policy %s: %w", r.File, registry.ErrStrict)
	}
	p, result, err := CheckPolicy(r, s.Registry, s.now())
	if err != nil || r.Step != PolicyApply || len(result.Failed) > 0 {
		if r.Step == PolicyApply {
			s.note(ctx, audit.Record{Event: "policy", Answer: audit.Refused, Detail: r.File})
		}
		return result, err
	}
	diff, err := s.Registry.Apply(p, r.File, []byte(r.Source), r.Anew)
	if err != nil {
		return result, fmt.Errorf("apply policy %s: %w; the policy before stays in force", r.File, err)
	}
	s.changed(diff)
	s.note(ctx, audit.Record{Event: "policy", Answer: audit.Done, Version: diff.Version,
		Detail: fmt.Sprintf("%s: %d grants added, %d removed, %d unchanged", r.File, len(diff.Added), len(diff.Removed), diff.Kept)})
	result.Applied, result.Version = true, diff.Version
	result.Added, result.Removed, result.Unchanged = len(diff.Added), len(diff.Removed), diff.Kept
	return result, nil
}

// CheckPolicy checks a policy and, from PolicyTest on, runs its tests. enrolled
// is nil where no server's state is at hand: then only the file is judged.
func CheckPolicy(r PolicyRequest, enrolled *registry.Registry, now time.Time) (*policy.Policy, PolicyResult, error) {
	p, err := policy.Parse(r.File, []byte(r.Source), now)
	if err != nil {
		return nil, PolicyResult{}, err
	}
	result := PolicyResult{Forwards: len(p.Forwards), Grants: p.Size(), Tests: p.Tests()}
	if enrolled != nil {
		keys := enrolled.Keys()
		isRelay := func(name string) bool { _, ok := enrolled.Relay(name); return ok }
		if err := p.CheckNames(enrolled.Domain(), keys, isRelay); err != nil {
			return nil, PolicyResult{}, err
		}
		result.Grants = len(p.Grants(keys, enrolled.Allowed(), now))
	}
	result.Warnings = p.WarningLines()
	if r.Step != PolicyCheck {
		for _, err := range p.Test(now) {
			result.Failed = append(result.Failed, err.Error())
		}
	}
	return p, result, nil
}

// PolicyDiff is what a policy file would do.
type PolicyDiff struct {
	File    string          `json:"file"`
	Version uint64          `json:"version"` // of the policy in force; 0: none was applied
	Changes []policy.Change `json:"changes"`
	// Warnings are those that apply would show.
	Warnings []string `json:"warnings,omitempty"`
}

// Diff compares a policy file with the policy in force.
func (s *Service) Diff(r PolicyRequest) (PolicyDiff, error) {
	r.Step = PolicyCheck
	p, result, err := CheckPolicy(r, s.Registry, s.now())
	if err != nil {
		return PolicyDiff{}, err
	}
	changes := p.Compare(s.Registry.Policy(), s.now())
	return PolicyDiff{File: r.File, Version: s.Registry.Applied().Version, Changes: changes, Warnings: result.Warnings}, nil
}

// ApplyFirst applies the policy file of the configuration if no policy was ever
// applied. A missing file is as good as an empty one: it denies all.
func (s *Service) ApplyFirst(ctx context.Context) (PolicyResult, error) {
	if s.Registry.Applied().Version > 0 {
		return PolicyResult{}, nil
	}
	if s.Registry.Strict() {
		return PolicyResult{Warnings: []string{"no signed policy was installed yet: everything is denied (netport-server policy request)"}}, nil
	}
	if _, err := os.Stat(s.Config.Policy); os.IsNotExist(err) {
		return PolicyResult{Warnings: []string{fmt.Sprintf("%s: there is no such file: everything is denied until a policy is applied", s.Config.Policy)}}, nil
	}
	b, err := policy.ReadFile(s.Config.Policy)
	if err != nil {
		return PolicyResult{}, err
	}
	return s.Policy(ctx, PolicyRequest{Step: PolicyApply, File: s.Config.Policy, Source: string(b)})
}

// Shown is the policy in force.
type Shown struct {
	registry.Applied
	Grants   int              `json:"grants"`
	Forwards []ShownForward   `json:"forwards"`
	Allowed  []policy.Opening `json:"allowed"` // on request
	// Pending are those of them that wait to be signed.
	Pending []policy.Opening `json:"pending,omitempty"`
}

// ShownForward is a forward with all that the policy says of it.
type ShownForward struct {
	policy.Forward
	Says []string `json:"says"`
}

// Show returns the policy in force.
func (s *Service) Show(struct{}) (Shown, error) {
	shown := Shown{Applied: s.Registry.Applied(), Grants: s.Registry.Grants(), Allowed: s.Registry.Openings(), Pending: s.Registry.Pending()}
	if p := s.Registry.Policy(); p != nil {
		for i := range p.Forwards {
			shown.Forwards = append(shown.Forwards, ShownForward{p.Forwards[i], p.Forwards[i].Says()})
		}
	}
	return shown, nil
}
