package admin

import (
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/ca"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
)

// maxBy is the longest name of who allows something, in bytes.
const maxBy = 64

// AllowRequest opens a forward on request for a time, or ends what was allowed of it.
type AllowRequest struct {
	Forward string `json:"forward"`
	For     string `json:"for,omitempty"`  // as ca.ParseDuration reads it
	Only    string `json:"only,omitempty"` // the one portal it is for
	By      string `json:"by"`             // whose word it is
	End     bool   `json:"end,omitempty"`
}

// AllowResult says what came of it.
type AllowResult struct {
	Openings []policy.Opening `json:"openings"` // the one that was made, or those that were ended
	Added    int              `json:"grants_added"`
	Removed  int              `json:"grants_removed"`
}

// Allow is on disk when it returns, and portals that are connected have been told.
// What it opens ends by itself at both portals: its permissions carry their end.
func (s *Service) Allow(r AllowRequest) (AllowResult, error) {
	s.change.Lock()
	defer s.change.Unlock()
	result, diff, err := s.allow(r)
	if err != nil {
		s.Audit.Write(audit.Record{Event: "allow", Answer: audit.Refused, Forward: r.Forward, Portal: r.Only, Detail: fmt.Sprintf("by %s: %v", r.By, err)})
		return result, fmt.Errorf("allow: %w", err)
	}
	s.changed(diff)
	result.Added, result.Removed = len(diff.Added), len(diff.Removed)
	for _, o := range result.Openings {
		answer, detail := audit.Granted, fmt.Sprintf("until %s by %s: %d grants added", o.Until.Format(time.RFC3339), r.By, result.Added)
		if r.End {
			answer, detail = audit.Ended, fmt.Sprintf("allowed until %s by %s, ended by %s: %d grants removed", o.Until.Format(time.RFC3339), o.By, r.By, result.Removed)
		}
		s.Audit.Write(audit.Record{Event: "allow", Answer: answer, Forward: o.Forward, Portal: o.Only, Version: diff.Version, Detail: detail})
	}
	return result, nil
}

func (s *Service) allow(r AllowRequest) (result AllowResult, diff registry.Diff, err error) {
	if err := checkBy(r.By); err != nil {
		return result, diff, err
	}
	if r.End {
		result.Openings, diff, err = s.Registry.EndAllowed(r.Forward, r.By)
		return result, diff, err
	}
	length, err := ca.ParseDuration(r.For)
	if err != nil {
		return result, diff, err
	}
	o, diff, err := s.Registry.Allow(r.Forward, r.Only, r.By, length)
	result.Openings = []policy.Opening{o}
	return result, diff, err
}

// checkBy wants a name that shows as it is.
func checkBy(by string) error {
	if by == "" {
		return errors.New("nobody is named: say on whose word, with --by NAME")
	}
	for _, c := range by {
		if c == utf8.RuneError || !unicode.IsGraphic(c) {
			return fmt.Errorf("the name %q holds what does not show", by)
		}
	}
	if len(by) > maxBy {
		return fmt.Errorf("a name of %d bytes: at most %d are allowed", len(by), maxBy)
	}
	return nil
}

// Allowed returns what is allowed on request now.
func (s *Service) Allowed(struct{}) ([]policy.Opening, error) { return s.Registry.Openings(), nil }
