package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/registry"
)

// note writes an audit line about what an operator has asked for, with who that was.
func (s *Service) note(ctx context.Context, r audit.Record) {
	r.By = local.CallerOf(ctx).String()
	s.Audit.Write(r)
}

// CheckAdmin reports why a peer is no admin of this server (any more). It is a rule for
// handshakes, and to be asked again when a request is here.
func (s *Service) CheckAdmin(p identity.Peer) error {
	if p.ID.Role != identity.Admin {
		return fmt.Errorf("peer is %s, expected an admin", p.ID)
	}
	if a, ok := s.Registry.Admin(p.ID.Name); !ok || !a.Holds(p.Key) {
		return fmt.Errorf("peer is %s with the key %s, which is not enrolled", p.ID, p.Key)
	}
	return nil
}

// reads are the requests on a state that change nothing, which is all that a read-only
// admin may ask for.
var reads = map[string]bool{
	CommandAdmins: true, CommandEnrolments: true, CommandCAStatus: true, CommandCAPending: true, CommandShow: true,
	CommandDiff: true, CommandExplain: true, CommandAllowed: true, CommandSignAsk: true, CommandAudit: true, CommandVerify: true,
}

// CheckScope reports why an admin may not ask for this, which is then in the audit log.
func (s *Service) CheckScope(ctx context.Context, name, command string, args json.RawMessage) error {
	a, ok := s.Registry.Admin(name)
	if !ok {
		return errors.New("this admin is not enrolled any more")
	}
	if !a.ReadOnly || reads[command] {
		return nil
	}
	var r PolicyRequest
	if command == CommandPolicy && json.Unmarshal(args, &r) == nil && (r.Step == PolicyCheck || r.Step == PolicyTest) {
		return nil
	}
	s.note(ctx, audit.Record{Event: "command", Answer: audit.Refused, Detail: fmt.Sprintf("%.64q: a read-only admin", command)})
	return fmt.Errorf("%s is a read-only admin, and this command changes something", name)
}

// Admins returns the enrolled admins.
func (s *Service) Admins(struct{}) ([]registry.Admin, error) { return s.Registry.Admins(), nil }

// maxTail is how many audit records one request may ask for.
const maxTail = 100_000

// TailRequest asks for the last audit records.
type TailRequest struct {
	Count int       `json:"count"`
	Since time.Time `json:"since,omitzero"`
}

// Tail returns the last audit records.
func (s *Service) Tail(r TailRequest) ([]audit.Record, error) {
	if r.Count < 1 || r.Count > maxTail {
		return nil, fmt.Errorf("show audit: 1 to %d records at once", maxTail)
	}
	return audit.Tail(s.Config.State, r.Count, r.Since)
}

// VerifyRequest asks whether the audit log is whole.
type VerifyRequest struct {
	Head string `json:"head,omitempty"` // that was noted before
}

// VerifyAudit checks the audit log as far as it is on disk.
func (s *Service) VerifyAudit(r VerifyRequest) (audit.Verdict, error) {
	if r.Head != "" && !audit.IsHead(r.Head) {
		return audit.Verdict{}, errors.New("verify audit: the head is no hash")
	}
	return audit.Verify(s.Config.State, r.Head)
}
