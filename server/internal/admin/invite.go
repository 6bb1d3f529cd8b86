package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/invite"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/registry"
)

// maxInvited is how many tokens one request may make.
const maxInvited = 10_000

// InviteRequest asks for tokens.
type InviteRequest struct {
	Role      identity.Role `json:"role"`
	Name      string        `json:"name"`            // with Count a pattern, as in "till-%03d"
	Count     int           `json:"count,omitempty"` // 0: one, by its name
	First     int           `json:"first,omitempty"` // the number of the first
	Addresses []string      `json:"addresses,omitempty"`
	Life      time.Duration `json:"life"`
	Approve   bool          `json:"approve,omitempty"`
	Replace   bool          `json:"replace,omitempty"`
	ReadOnly  bool          `json:"read_only,omitempty"` // of an admin: it may change nothing
}

// Invited is a token, whose text is told this once.
type Invited struct {
	Name  string    `json:"name"`
	Token string    `json:"token"`
	Ends  time.Time `json:"ends"`
}

// Invite makes tokens: all or none.
func (s *Service) Invite(ctx context.Context, r InviteRequest) ([]Invited, error) {
	names, err := invitedNames(r)
	if err != nil {
		return nil, err
	}
	if r.Role == identity.Relay {
		if err := checkAddresses(r.Name, r.Addresses); err != nil {
			return nil, err
		}
	}
	root, err := s.joinRoot()
	if err != nil {
		return nil, fmt.Errorf("invite: %w", err)
	}
	if !s.Issues() {
		return nil, fmt.Errorf("invite: %w", errIssuesElsewhere)
	}
	var list []enrol.Invitation
	for _, name := range names {
		if err := s.Registry.CheckEnrol(r.Role, name, r.Replace); err != nil {
			return nil, fmt.Errorf("invite: %w", err)
		}
		list = append(list, enrol.Invitation{Role: r.Role, Name: name, Addresses: r.Addresses, Replace: r.Replace, Approve: r.Approve, ReadOnly: r.ReadOnly, Life: r.Life})
	}
	made, err := s.Desk.Invite(list)
	if err != nil {
		return nil, err
	}
	out := make([]Invited, 0, len(made))
	for _, m := range made {
		t := invite.Token{Role: m.Role, Name: m.Name, Authority: identity.FingerprintOf(root), Policy: s.public, ID: m.ID, Secret: m.Secret, Servers: s.Config.Servers}
		out = append(out, Invited{Name: m.Name, Token: t.Reveal(), Ends: m.Ends})
		detail := string(m.Role) + ", token " + m.ID.String() + ", until " + m.Ends.Format(time.RFC3339)
		if m.Approve {
			detail += ", with approval"
		}
		if m.ReadOnly {
			detail += ", read-only"
		}
		s.note(ctx, audit.Record{Event: "invite", Answer: audit.Done, Portal: m.Name, Detail: detail})
	}
	return out, nil
}

func invitedNames(r InviteRequest) ([]string, error) {
	if r.Role != identity.Portal && r.Role != identity.Relay && r.Role != identity.Admin {
		return nil, errors.New("invite: only portals, relays and admins are invited")
	}
	if r.Count == 0 {
		if err := identity.CheckName(r.Name); err != nil {
			return nil, fmt.Errorf("invite: %w", err)
		}
		return []string{r.Name}, nil
	}
	if r.Count < 0 || r.Count > maxInvited || r.First < 0 {
		return nil, fmt.Errorf("invite: 1 to %d at once", maxInvited)
	}
	format, ok := numberIn(r.Name)
	if !ok {
		return nil, fmt.Errorf("invite: with --count the name %q must hold one place for the number, as in \"till-%%03d\"", r.Name)
	}
	var names []string
	for i := range r.Count {
		name := fmt.Sprintf(format, r.First+i)
		if err := identity.CheckName(name); err != nil {
			return nil, fmt.Errorf("invite: %w", err)
		}
		names = append(names, name)
	}
	return names, nil
}

// numberIn reports whether a pattern has exactly one %d, %2d or %03d and no other %.
func numberIn(pattern string) (format string, ok bool) {
	before, after, found := strings.Cut(pattern, "%")
	if !found || strings.Contains(after, "%") {
		return "", false
	}
	width, rest, found := strings.Cut(after, "d")
	if !found || len(width) > 2 || strings.Trim(width, "0123456789") != "" {
		return "", false
	}
	if width != "" && width[0] != '0' { // names have no spaces
		width = "0" + width
	}
	return before + "%" + width + "d" + rest, true
}

func checkAddresses(name string, list []string) error {
	if len(list) == 0 || len(list) > maxAddresses {
		return fmt.Errorf("enrol relay %s: 1 to %d addresses are needed", name, maxAddresses)
	}
	for _, a := range list {
		if err := registry.CheckAddress(a); err != nil {
			return fmt.Errorf("enrol relay %s: %w", name, err)
		}
	}
	return nil
}

// Enrolments returns the tokens that have not ended, and who waits at them.
func (s *Service) Enrolments(struct{}) ([]enrol.Token, error) { return s.Desk.Tokens() }

// DecideRequest names a waiting key by its first digits.
type DecideRequest struct {
	Key string `json:"key"`
}

// Approve lets a key that waits have its certificate.
func (s *Service) Approve(ctx context.Context, r DecideRequest) (enrol.Token, error) {
	t, err := s.Desk.Approve(r.Key)
	if err == nil {
		s.note(ctx, audit.Record{Event: "approve", Answer: audit.Done, Portal: t.Name, Detail: string(t.Role) + ", key " + t.Used.String()})
	}
	return t, err
}

// Reject ends the token at which a key waits.
func (s *Service) Reject(ctx context.Context, r DecideRequest) (enrol.Token, error) {
	t, err := s.Desk.Reject(r.Key)
	if err == nil {
		s.note(ctx, audit.Record{Event: "approve", Answer: audit.Refused, Portal: t.Name, Detail: string(t.Role) + ", key " + r.Key})
	}
	return t, err
}
