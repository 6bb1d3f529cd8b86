package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/netport/netport/proto/conffile"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/policy"
	"github.com/netport/netport/server/internal/registry"
)

// maxBy is the longest name of who allows something, in bytes.
const maxBy = 64

// AllowRequest opens a forward on request for a time, or ends what was allowed of it.
type AllowRequest struct {
	Forward string `json:"forward"`
	For     string `json:"for,omitempty"`  // as conffile.ParseDuration reads it
	Only    string `json:"only,omitempty"` // the one portal it is for
	By      string `json:"by"`             // whose word it is; empty: the admin's who asks
	End     bool   `json:"end,omitempty"`
}

// AllowResult says what came of it.
type AllowResult struct {
	Openings []policy.Opening `json:"openings"` // the one that was made, or those that were ended
	Added    int              `json:"grants_added"`
	Removed  int              `json:"grants_removed"`
	// Waits says that it is opened when it was signed (strict mode).
	Waits bool `json:"waits,omitempty"`
}

// Allow is on disk when it returns, and portals that are connected have been told.
// What it opens ends by itself at both portals: its permissions carry their end.
func (s *Service) Allow(ctx context.Context, r AllowRequest) (AllowResult, error) {
	s.change.Lock()
	defer s.change.Unlock()
	if r.By == "" {
		r.By = local.CallerOf(ctx).Admin
	}
	result, diff, err := s.allow(r)
	if err != nil {
		s.note(ctx, audit.Record{Event: "allow", Answer: audit.Refused, Forward: r.Forward, Portal: r.Only, Detail: fmt.Sprintf("by %s: %v", r.By, err)})
		return result, fmt.Errorf("allow: %w", err)
	}
	s.changed(diff)
	result.Added, result.Removed = len(diff.Added), len(diff.Removed)
	pending := s.Registry.Pending()
	for _, o := range result.Openings {
		answer, detail := audit.Granted, fmt.Sprintf("until %s by %s: %d grants added", o.Until.Format(time.RFC3339), r.By, result.Added)
		if result.Waits = slices.Contains(pending, o); result.Waits {
			answer, detail = audit.Waiting, fmt.Sprintf("until %s by %s: to be signed first", o.Until.Format(time.RFC3339), r.By)
		}
		if r.End {
			answer, detail = audit.Ended, fmt.Sprintf("allowed until %s by %s, ended by %s: %d grants removed", o.Until.Format(time.RFC3339), o.By, r.By, result.Removed)
		}
		s.note(ctx, audit.Record{Event: "allow", Answer: answer, Forward: o.Forward, Portal: o.Only, Version: diff.Version, Detail: detail})
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
	length, err := conffile.ParseDuration(r.For)
	if err != nil {
		return result, diff, err
	}
	o, diff, err := s.Registry.Allow(r.Forward, r.Only, r.By, length)
	result.Openings = []policy.Opening{o}
	return result, diff, err
}

// lapseTime is how often it is looked which openings have ended.
const lapseTime = time.Second

// Run notes what ends by itself, until ctx is cancelled.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(lapseTime)
	defer tick.Stop()
	for {
		if err := s.lapse(); err != nil {
			s.log.Error("what was allowed on request has ended, which is not on disk", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lapse notes which openings have ended by themselves.
func (s *Service) lapse() error {
	s.change.Lock()
	defer s.change.Unlock()
	diff, err := s.Registry.Lapse()
	if err == nil && len(diff.Lapsed) > 0 {
		s.changed(diff)
	}
	return err
}

// auditLapsed writes down which openings a change has found to have ended by themselves.
func (s *Service) auditLapsed(diff registry.Diff) {
	now := s.now()
	for _, o := range diff.Lapsed {
		how := "its time was over"
		if now.Before(o.Until) {
			how = "the policy has it no more"
		}
		s.Audit.Write(audit.Record{Event: "allow", Answer: audit.Ended, Forward: o.Forward, Portal: o.Only, Version: diff.Version,
			Detail: fmt.Sprintf("allowed until %s by %s: %s", o.Until.Format(time.RFC3339), o.By, how)})
	}
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

// AllowedOpening is an opening as the operator is shown it.
type AllowedOpening struct {
	policy.Opening
	Waits bool `json:"waits,omitempty"` // to be signed
}

// Allowed returns what is allowed on request now.
func (s *Service) Allowed(struct{}) ([]AllowedOpening, error) {
	pending, list := s.Registry.Pending(), []AllowedOpening{}
	for _, o := range s.Registry.Openings() {
		list = append(list, AllowedOpening{o, slices.Contains(pending, o)})
	}
	return list, nil
}
