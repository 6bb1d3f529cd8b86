package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/registry"
)

// IssueRequest asks for the certificate of a portal or relay. Its private key
// never leaves the command that made it.
type IssueRequest struct {
	Role      identity.Role `json:"role"`
	Name      string        `json:"name"`
	Request   []byte        `json:"request"`             // PKCS #10, DER: identity.NewRequest
	Addresses []string      `json:"addresses,omitempty"` // of a relay
	Replace   bool          `json:"replace,omitempty"`
}

// Issued is the answer.
type Issued struct {
	Certificate string   `json:"certificate"` // PEM
	CA          string   `json:"ca"`          // PEM
	Servers     []string `json:"servers"`     // to be dialled
	PolicyKey   string   `json:"policy_key"`
	Added       int      `json:"added"`   // grants signed for the new key
	Removed     int      `json:"removed"` // grants of the old key
}

// Issue enrols a portal or relay and makes its certificate.
func (s *Service) Issue(ctx context.Context, r IssueRequest) (Issued, error) {
	if s.Waits() {
		return Issued{}, fmt.Errorf("issue %s %s: no CA key is here to make its certificate with at once: invite it (netport-server invite %[1]s %[2]s), then it waits for \"netport-server ca sign\"", r.Role, r.Name)
	}
	asked, err := s.readRequest(r.Role, r.Name, r.Request)
	if err != nil {
		return Issued{}, fmt.Errorf("issue %s %s: %w", r.Role, r.Name, err)
	}
	if r.Role == identity.Relay {
		if err := checkAddresses(r.Name, r.Addresses); err != nil {
			return Issued{}, err
		}
	}
	if err := s.Registry.CheckEnrol(r.Role, r.Name, r.Replace); err != nil {
		return Issued{}, err
	}
	chain, e, err := s.issue(ctx, r.Role, r.Name, asked.Public, r.Request, "")
	if err != nil {
		return Issued{}, err
	}
	diff, err := s.enrol(invited{Role: r.Role, Name: r.Name, Addresses: r.Addresses, Replace: r.Replace}, e)
	if err != nil {
		return Issued{}, err
	}
	detail := "new"
	if r.Replace {
		detail = "new or replaced"
	}
	s.note(ctx, audit.Record{Event: "enrol", Answer: audit.Done, Portal: r.Name, Version: diff.Version, Detail: string(r.Role) + ", key " + e.Key.String() + ", " + detail})
	return Issued{
		Certificate: string(identity.EncodeCertificates(chain...)),
		CA:          string(identity.EncodeCertificates(s.Bundle().Valid(s.now())...)),
		Servers:     s.Config.Servers,
		PolicyKey:   s.Registry.PolicyKey(),
		Added:       len(diff.Added), Removed: len(diff.Removed),
	}, nil
}

// readRequest checks a certificate request for a name of this domain.
func (s *Service) readRequest(role identity.Role, name string, der []byte) (identity.Request, error) {
	asked, err := identity.ParseRequest(der)
	if err != nil {
		return identity.Request{}, err
	}
	id, err := identity.New(s.Config.Domain, role, name)
	if err != nil {
		return identity.Request{}, err
	}
	if asked.ID != id {
		return identity.Request{}, fmt.Errorf("the request is for %s, expected %s", asked.ID, id)
	}
	if s.Registry.IsRevoked(asked.Key) {
		return identity.Request{}, fmt.Errorf("the key %s was revoked: make a new one", asked.Key)
	}
	return asked, nil
}

// invited is who is to be enrolled.
type invited struct {
	Role      identity.Role
	Name      string
	Addresses []string // of a relay
	ReadOnly  bool     // of an admin
	Replace   bool     // the name may be another's
}

// enrol writes a name with its key, and makes the change known.
func (s *Service) enrol(who invited, e registry.Enrolment) (registry.Diff, error) {
	s.change.Lock()
	defer s.change.Unlock()
	return s.enrolLocked(who, e)
}

// enrolLocked is enrol while change is held.
func (s *Service) enrolLocked(who invited, e registry.Enrolment) (registry.Diff, error) {
	var diff registry.Diff
	var err error
	switch who.Role {
	case identity.Portal:
		diff, err = s.Registry.PutPortal(registry.Portal{Name: who.Name, Enrolment: e}, who.Replace)
	case identity.Relay:
		err = s.Registry.PutRelay(registry.Relay{Name: who.Name, Enrolment: e, Addresses: who.Addresses}, who.Replace)
	case identity.Admin:
		err = s.Registry.PutAdmin(registry.Admin{Name: who.Name, Enrolment: e, ReadOnly: who.ReadOnly}, who.Replace)
	default:
		err = errors.New("only portals, relays and admins are enrolled")
	}
	if err != nil {
		return registry.Diff{}, err
	}
	s.changed(diff)
	return diff, nil
}

// maxAddresses is how many addresses a relay may be given.
const maxAddresses = 16
