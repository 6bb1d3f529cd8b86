package admin

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/policy"
)

// ExplainRequest asks whether two ends are joined.
type ExplainRequest struct {
	Pair   string     `json:"pair"`        // "PORTAL ENDPOINT -> PORTAL ENDPOINT"
	At     time.Time  `json:"at,omitzero"` // zero: now
	Client netip.Addr `json:"client"`      // zero: any
}

// Explained says whether, and why.
type Explained struct {
	Pair    string    `json:"pair"`
	At      time.Time `json:"at"`
	Version uint64    `json:"version"` // of the policy in force; 0: none was applied
	policy.Answer
	ReasonText string   `json:"reason,omitempty"`
	Missing    []string `json:"not_enrolled,omitempty"` // portals of the pair
}

// Explain answers by the policy in force and by who is enrolled.
func (s *Service) Explain(r ExplainRequest) (Explained, error) {
	result := Explained{Pair: r.Pair, At: r.At, Version: s.Registry.Applied().Version}
	if r.At.IsZero() {
		result.At = s.now().UTC().Truncate(time.Second)
	}
	p := s.Registry.Policy()
	if p == nil {
		p = &policy.Policy{}
	}
	a, err := p.Explain(r.Pair, result.At, r.Client, s.Registry.Allowed())
	if err != nil {
		return result, fmt.Errorf("explain: %w", err)
	}
	result.Answer = a
	for _, name := range a.Portals {
		if _, ok := s.Registry.Portal(name); !ok {
			result.Missing = append(result.Missing, name)
		}
	}
	if a.Allowed && len(result.Missing) > 0 {
		result.Allowed, result.Reason = false, wire.ReasonNotGranted
		result.Why += fmt.Sprintf(", but nothing is granted until it is enrolled: %s (netport-server invite portal NAME)", strings.Join(result.Missing, " and "))
	}
	if result.Version == 0 {
		result.Why = "no policy was applied yet: everything is denied"
	}
	if !result.Allowed {
		result.ReasonText = result.Reason.String()
	}
	return result, nil
}
