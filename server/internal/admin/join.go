package admin

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/pending"
	"github.com/netport/netport/server/internal/registry"
)

// refuseToken is the one answer to all tokens that are wrong.
var refuseToken = &enrol.Refusal{Reason: wire.ReasonToken, Text: enrol.ErrToken.Error()}

// Joined is what who joins is told at last.
type Joined struct {
	Authorities wire.Authorities
	Enrolled    wire.Enrolled
}

// signingTime is how long a token stays good for the key that has used it, while the
// certificate waits for an operator who signs it elsewhere.
const signingTime = 30 * 24 * time.Hour

// Join handles one request to join with a token. enrol.ErrWait says that an operator
// has to decide or to sign first (Desk.Changed tells when); a *enrol.Refusal is for who asked, and any
// other error is about the state.
func (s *Service) Join(ctx context.Context, m wire.Enrol, from netip.Addr) (Joined, identity.KeyHash, error) {
	asked, err := identity.ParseRequest(m.CSR)
	if err != nil {
		return Joined{}, identity.KeyHash{}, &enrol.Refusal{Reason: wire.ReasonProtocol, Text: err.Error()}
	}
	joined, err := s.join(ctx, m, asked, from)
	return joined, asked.Key, err
}

func (s *Service) join(ctx context.Context, m wire.Enrol, asked identity.Request, from netip.Addr) (Joined, error) {
	if s.Registry.IsRevoked(asked.Key) {
		return Joined{}, refuseToken
	}
	if s.Authorities().Version == 0 { // before the token is used up
		return Joined{}, &enrol.Refusal{Reason: wire.ReasonNotGranted, Text: "the domain's authorities are not signed yet (netport-server policy request)"}
	}
	t, err := s.Desk.Claim(enrol.Claim{ID: m.Token, Secret: m.Secret, Asked: asked.ID, Key: asked.Key, From: from})
	switch {
	case errors.Is(err, enrol.ErrToken):
		return Joined{}, refuseToken
	case errors.Is(err, enrol.ErrRejected):
		return Joined{}, &enrol.Refusal{Reason: wire.ReasonRejected, Text: err.Error()}
	case err != nil:
		return Joined{}, err
	case asked.ID.Domain != s.Config.Domain:
		return Joined{}, refuseToken
	}
	held, known := s.Registry.Enrolled(t.Role, t.Name)
	switch {
	case known && held.Holds(asked.Key): // it has been here before, and the answer was lost
	case known && (!t.Replace || held.Issued.After(t.Made)):
		return Joined{}, refuseToken // the name has another key since
	}
	chain, e, err := s.issue(ctx, t.Role, t.Name, asked.Public, m.CSR, "")
	if errors.Is(err, pending.ErrWaits) { // the key has the token, and keeps it for as long as that takes
		if err := s.Desk.Keep(t.ID, asked.Key, s.now().Add(signingTime)); err != nil {
			return Joined{}, err
		}
		return Joined{}, fmt.Errorf("%w: %w", enrol.ErrWait, err)
	}
	if err != nil {
		return Joined{}, err
	}
	diff, err := s.enrolByToken(t, e)
	if err != nil {
		return Joined{}, err
	}
	s.Audit.Write(audit.Record{Event: "enrol", Answer: audit.Done, Portal: t.Name, From: from.String(), Version: diff.Version,
		Detail: fmt.Sprintf("%s, key %s, token %s", t.Role, e.Key, t.ID)})
	return s.joined(chain, t.Addresses), nil
}

func (s *Service) enrolByToken(t enrol.Token, e registry.Enrolment) (registry.Diff, error) {
	s.change.Lock()
	defer s.change.Unlock()
	// The key may have been here before, a moment ago even: with a request whose answer nobody waited for.
	if held, known := s.Registry.Enrolled(t.Role, t.Name); !known || !held.Holds(e.Key) {
		return s.enrolLocked(invited{Role: t.Role, Name: t.Name, Addresses: t.Addresses, ReadOnly: t.ReadOnly, Replace: t.Replace}, e)
	}
	diff, err := s.Registry.Renew(t.Role, t.Name, e.Key, e)
	if err == nil {
		s.changed(diff)
	}
	return diff, err
}

// joined is what a new certificate comes with.
func (s *Service) joined(chain []*x509.Certificate, addresses []string) Joined {
	m := wire.Enrolled{Time: uint64(s.now().Unix()), Chain: raw(chain), Policy: []ed25519.PublicKey{s.public}, Servers: s.Config.Servers}
	for _, text := range addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			m.Addresses = append(m.Addresses, a)
		}
	}
	return Joined{Authorities: s.Authorities(), Enrolled: m}
}

// Renew makes a new certificate for a peer that has proven itself. An error with
// pending.ErrWaits says that an operator has to sign first: it is to be asked for again
// when OnSigned tells of that.
func (s *Service) Renew(ctx context.Context, p identity.Peer, csr []byte) ([]*x509.Certificate, error) {
	asked, err := s.readRequest(p.ID.Role, p.ID.Name, csr)
	if err != nil {
		return nil, &enrol.Refusal{Reason: wire.ReasonProtocol, Text: err.Error()}
	}
	if held, ok := s.Registry.Enrolled(p.ID.Role, p.ID.Name); !ok || !held.Holds(p.Key) {
		return nil, &enrol.Refusal{Reason: wire.ReasonRevoked, Text: "the key is not enrolled any more"}
	}
	if asked.Key != p.Key && !s.granted(p.ID, asked.Key) {
		return nil, s.propose(p, asked.Key)
	}
	chain, e, err := s.issue(ctx, p.ID.Role, p.ID.Name, asked.Public, csr, p.Serial)
	if errors.Is(err, errIssuesElsewhere) {
		return nil, &enrol.Refusal{Reason: wire.ReasonNotGranted, Text: "this server issues no certificates: renew it where its CA is"}
	}
	if err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	diff, err := s.Registry.Renew(p.ID.Role, p.ID.Name, p.Key, e)
	if err != nil {
		return nil, err
	}
	s.changed(diff)
	detail := string(p.ID.Role) + ", key " + e.Key.String() + ", until " + e.NotAfter.UTC().Format(time.RFC3339)
	if e.Key != p.Key {
		detail += ", in place of key " + p.Key.String()
	}
	s.Audit.Write(audit.Record{Event: "renew", Answer: audit.Done, Portal: p.ID.Name, Version: diff.Version, Detail: detail})
	return chain, nil
}

// granted reports whether who takes another key loses nothing by that.
func (s *Service) granted(id identity.ID, key identity.KeyHash) bool {
	return id.Role != identity.Portal || s.Registry.Granted(id.Name, key)
}

// propose notes that a portal wants another key, for the next request of signatures. Until
// permissions name it, the portal goes on with the key of now. The error says so.
func (s *Service) propose(p identity.Peer, key identity.KeyHash) error {
	s.change.Lock()
	defer s.change.Unlock()
	diff, err := s.Registry.Propose(p.ID.Name, p.Key, key)
	if err != nil {
		return err
	}
	s.changed(diff)
	return fmt.Errorf("%w: the key %s", pending.ErrPermissions, key)
}

// RenewLate makes a new certificate for a peer whose own has ended. enrol.ErrWait is as
// with Join.
func (s *Service) RenewLate(ctx context.Context, p identity.Peer, csr []byte) (Joined, error) {
	if late := s.now().Sub(p.NotAfter); late > s.Config.Live().RenewAfterExpiry {
		return Joined{}, &enrol.Refusal{Reason: wire.ReasonNotGranted, Text: fmt.Sprintf("the certificate ended on %s, longer ago than this server renews it: have it invited anew", p.NotAfter.UTC().Format(time.DateOnly))}
	}
	chain, err := s.Renew(ctx, p, csr)
	if errors.Is(err, pending.ErrWaits) {
		return Joined{}, fmt.Errorf("%w: %w", enrol.ErrWait, err)
	}
	if err != nil {
		return Joined{}, err
	}
	var addresses []string
	if p.ID.Role == identity.Relay {
		relay, _ := s.Registry.Relay(p.ID.Name)
		addresses = relay.Addresses
	}
	return s.joined(chain, addresses), nil
}

// keyChangeTime is how long a name may have two keys: who has the new one shows it
// within that time.
const keyChangeTime = time.Hour

// Settle makes the key that a peer has shown itself with the only one of its name,
// where it has two: the new one at once, if permissions may name it, and the old one when
// the change has had its time, for then its holder has lost the new one. One that waits
// for permissions stays.
func (s *Service) Settle(p identity.Peer) error {
	held, ok := s.Registry.Enrolled(p.ID.Role, p.ID.Name)
	if !ok || held.Next.IsZero() || !held.Holds(p.Key) {
		return nil
	}
	if p.Key == held.Key && (held.NextSince.IsZero() || s.now().Sub(held.NextSince) < keyChangeTime) {
		return nil
	}
	if p.Key == held.Next && !s.granted(p.ID, held.Next) { // it would lose what is granted to the other
		return nil
	}
	s.change.Lock()
	defer s.change.Unlock()
	diff, err := s.Registry.Settle(p.ID.Role, p.ID.Name, p.Key)
	if err != nil {
		return err
	}
	s.changed(diff)
	s.Audit.Write(audit.Record{Event: "renew", Answer: audit.Done, Portal: p.ID.Name, Version: diff.Version, Detail: string(p.ID.Role) + ", has only the key " + p.Key.String() + " now"})
	return nil
}

// AdmitElsewhere enrols who comes with a right certificate that was not issued here,
// where the configuration allows that. A name that was revoked never enrols itself.
func (s *Service) AdmitElsewhere(p identity.Peer) error {
	if !s.Config.AcceptElsewhere {
		return nil
	}
	held, known := s.Registry.Enrolled(p.ID.Role, p.ID.Name)
	if known && held.Key == p.Key && held.NotAfter.Equal(p.NotAfter) || known && held.Next == p.Key {
		return nil
	}
	if !s.Registry.Begin(p.ID.Role, p.ID.Name).IsZero() || s.Registry.IsRevoked(p.Key) {
		return nil
	}
	e := registry.Enrolment{Key: p.Key, Issued: s.now().UTC(), NotAfter: p.NotAfter}
	s.change.Lock()
	defer s.change.Unlock()
	var diff registry.Diff
	var err error
	what := "its certificate was issued elsewhere"
	switch {
	case known: // its CA vouches for the new key as it did for the old one
		diff, err = s.Registry.Renew(p.ID.Role, p.ID.Name, held.Key, e)
	case p.ID.Role == identity.Portal:
		diff, err = s.Registry.PutPortal(registry.Portal{Name: p.ID.Name, Enrolment: e}, false)
	default:
		return nil // a relay's addresses are the operator's to give
	}
	if err != nil {
		return err
	}
	s.changed(diff)
	s.Audit.Write(audit.Record{Event: "enrol", Answer: audit.Done, Portal: p.ID.Name, Version: diff.Version, Detail: fmt.Sprintf("%s, key %s, %s", p.ID.Role, p.Key, what)})
	return nil
}
