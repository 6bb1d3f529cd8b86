package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/strict"
)

// CAPending returns the certificates that wait for the key of the CA, the oldest first,
// as many as are signed at once.
func (s *Service) CAPending(struct{}) (strict.CertificateRequests, error) {
	if !s.Waits() {
		return strict.CertificateRequests{}, fmt.Errorf("no certificate waits for a key elsewhere: ca_key, ca_command or accept_issued_elsewhere says who issues them here")
	}
	list, _, err := s.pending.Waiting()
	if err != nil {
		return strict.CertificateRequests{}, err
	}
	return strict.CertificateRequests{Domain: s.Config.Domain, Requests: append([]strict.CertificateRequest{}, list...)}, nil
}

// Waiting says how many certificates wait for the key of the CA, and since when.
func (s *Service) Waiting() (count int, since time.Time, err error) {
	list, count, err := s.pending.Waiting()
	if len(list) > 0 {
		since = list[0].Since
	}
	return count, since, err
}

// Installed says what became of certificates that were signed elsewhere.
type Installed struct {
	Installed int      `json:"installed"` // those that somebody waits for
	Waiting   int      `json:"waiting"`   // that were not signed yet
	Refused   []string `json:"refused,omitempty"`
}

// InstallCertificates takes the certificates that were signed where the CA key is, and has
// who waits for them get them.
func (s *Service) InstallCertificates(ctx context.Context, m strict.Certificates) (Installed, error) {
	if m.Domain != s.Config.Domain {
		return Installed{}, fmt.Errorf("install certificates: they were signed for the domain %q, and this server's is %q", m.Domain, s.Config.Domain)
	}
	n, refused, err := s.pending.Install(m.Certificates)
	if err != nil {
		return Installed{}, fmt.Errorf("install certificates: %w", err)
	}
	v := Installed{Installed: n}
	for _, err := range refused {
		v.Refused = append(v.Refused, err.Error())
		s.note(ctx, audit.Record{Event: "certificate", Answer: audit.Refused, Detail: err.Error()})
	}
	if n > 0 {
		s.note(ctx, audit.Record{Event: "certificate", Answer: audit.Done, Detail: fmt.Sprintf("%d that were signed elsewhere", n)})
		s.broughtSigned()
	}
	v.Waiting, _, err = s.Waiting()
	return v, err
}
