package admin

import (
	"crypto/x509"
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
	Public    []byte        `json:"public"`              // SubjectPublicKeyInfo, DER
	Addresses []string      `json:"addresses,omitempty"` // of a relay
	Replace   bool          `json:"replace,omitempty"`
}

// Issued is the answer.
type Issued struct {
	Certificate string `json:"certificate"` // PEM
	CA          string `json:"ca"`          // PEM
	Address     string `json:"address"`     // of the server
	PolicyKey   string `json:"policy_key"`
	Added       int    `json:"added"`   // grants signed for the new key
	Removed     int    `json:"removed"` // grants of the old key
}

// Issue enrols a portal or relay and makes its certificate.
func (s *Service) Issue(r IssueRequest) (Issued, error) {
	public, err := x509.ParsePKIXPublicKey(r.Public)
	if err != nil {
		return Issued{}, fmt.Errorf("issue %s %s: public key: %w", r.Role, r.Name, err)
	}
	cert, err := s.authority.Issue(r.Role, r.Name, public, s.Config.CertificateDays)
	if err != nil {
		return Issued{}, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	diff, err := s.enrol(r, cert)
	if err != nil {
		return Issued{}, err
	}
	s.changed(diff)
	detail := "new"
	if r.Replace {
		detail = "new or replaced"
	}
	s.Audit.Write(audit.Record{Event: "enrol", Answer: audit.Done, Portal: r.Name, Version: diff.Version, Detail: string(r.Role) + ", key " + identity.HashKey(cert).String() + ", " + detail})
	return Issued{
		Certificate: string(identity.EncodeCertificates(cert)),
		CA:          string(identity.EncodeCertificates(s.authority.Certificate)),
		Address:     s.Config.Address,
		PolicyKey:   s.Registry.PolicyKey(),
		Added:       len(diff.Added), Removed: len(diff.Removed),
	}, nil
}

func (s *Service) enrol(r IssueRequest, cert *x509.Certificate) (registry.Diff, error) {
	key, issued := identity.HashKey(cert), s.now().UTC()
	if r.Role == identity.Portal {
		return s.Registry.PutPortal(registry.Portal{Name: r.Name, Key: key, Issued: issued, NotAfter: cert.NotAfter}, r.Replace)
	}
	if len(r.Addresses) == 0 || len(r.Addresses) > maxAddresses {
		return registry.Diff{}, fmt.Errorf("enrol relay %s: 1 to %d addresses are needed", r.Name, maxAddresses)
	}
	for _, a := range r.Addresses {
		if err := registry.CheckAddress(a); err != nil {
			return registry.Diff{}, fmt.Errorf("enrol relay %s: %w", r.Name, err)
		}
	}
	if r.Role != identity.Relay {
		return registry.Diff{}, errors.New("only portals and relays are enrolled")
	}
	return registry.Diff{}, s.Registry.PutRelay(registry.Relay{Name: r.Name, Key: key, Addresses: r.Addresses, Issued: issued, NotAfter: cert.NotAfter}, r.Replace)
}

// maxAddresses is how many addresses a relay may be given.
const maxAddresses = 16
