package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/registry"
)

// RevokeRequest says what is to count no more: a name, a key, one certificate, or an
// authority with all it signed.
type RevokeRequest struct {
	Role      identity.Role `json:"role,omitempty"`
	Name      string        `json:"name,omitempty"`
	Unknown   bool          `json:"unknown,omitempty"` // the name need not be enrolled
	Key       string        `json:"key,omitempty"`     // all 64 hexadecimal digits
	Serial    string        `json:"serial,omitempty"`  // hexadecimal
	Issuer    string        `json:"issuer,omitempty"`  // of Serial; empty: who issues now
	Authority string        `json:"authority,omitempty"`
}

// RevokedResult says what came of it.
type RevokedResult struct {
	Epoch   uint64   `json:"epoch"`
	What    []string `json:"what"`
	Removed int      `json:"grants_removed"`
	Tokens  int      `json:"tokens_void"`
}

// Revoke takes certificates back. It is on disk when it returns, and everybody who is
// connected has been told.
func (s *Service) Revoke(ctx context.Context, r RevokeRequest) (RevokedResult, error) {
	s.change.Lock()
	defer s.change.Unlock()
	list, err := s.toRevoke(r)
	if err != nil {
		return RevokedResult{}, fmt.Errorf("revoke: %w", err)
	}
	var result RevokedResult
	if r.Name != "" { // nobody joins with an invitation from before
		if result.Tokens, err = s.Desk.Void(r.Role, r.Name); err != nil {
			return RevokedResult{}, fmt.Errorf("revoke: %w", err)
		}
	}
	var keys []identity.KeyHash
	for _, v := range list {
		if !v.Key.IsZero() {
			keys = append(keys, v.Key)
		}
	}
	if err := s.pending.Void(r.Role, r.Name, keys...); err != nil {
		return RevokedResult{}, fmt.Errorf("revoke: %w", err)
	}
	list, diff, err := s.Registry.Revoke(list...)
	if err != nil {
		return RevokedResult{}, err
	}
	s.changed(diff)
	s.revoked(list)
	result.Removed = len(diff.Removed)
	for _, v := range list {
		result.Epoch = v.Epoch
		result.What = append(result.What, v.Revocation().String())
		s.note(ctx, audit.Record{Event: "revoke", Answer: audit.Done, Portal: v.Name, Version: diff.Version, Detail: fmt.Sprintf("epoch %d: %s", v.Epoch, v.Revocation())})
	}
	if r.Authority != "" {
		bundle, err := s.Bundle().Drop(list[0].Key)
		if err == nil {
			err = s.install(ctx, bundle, "the authority "+list[0].Key.String()+" was revoked")
		}
		if err != nil {
			return result, fmt.Errorf("revoke: its certificates count no more, but it is still in the list of authorities: %w", err)
		}
	}
	return result, nil
}

func (s *Service) toRevoke(r RevokeRequest) ([]registry.Revoked, error) {
	switch {
	case r.Name != "":
		return s.nameToRevoke(r)
	case r.Key != "":
		key, err := parseKey(r.Key)
		if err != nil {
			return nil, err
		}
		if s.Bundle().Has(key) || key == s.Bundle().Issuing {
			return nil, errors.New("this is the key of an authority: \"netport-server revoke authority\" takes that back")
		}
		return []registry.Revoked{{Key: key}}, nil
	case r.Serial != "":
		return s.serialToRevoke(r)
	case r.Authority != "":
		key, err := s.trustedKey(r.Authority)
		if err != nil {
			return nil, err
		}
		if _, err := s.Bundle().Drop(key); err != nil {
			return nil, err
		}
		return []registry.Revoked{{Key: key}}, nil
	}
	return nil, errors.New("it is not said what")
}

// nameToRevoke revokes a name as of now and its keys: a certificate that was made in
// this very second, after another revocation, begins in it too.
func (s *Service) nameToRevoke(r RevokeRequest) ([]registry.Revoked, error) {
	if _, err := identity.New(s.Config.Domain, r.Role, r.Name); err != nil {
		return nil, err
	}
	held, ok := s.Registry.Enrolled(r.Role, r.Name)
	if !ok && !r.Unknown {
		return nil, fmt.Errorf("no %s %s is enrolled; --unknown revokes the certificates of a name that is not", r.Role, r.Name)
	}
	list := []registry.Revoked{{Role: r.Role, Name: r.Name, Before: s.now().UTC().Truncate(time.Second)}}
	for _, key := range []identity.KeyHash{held.Key, held.Next} {
		if !key.IsZero() {
			list = append(list, registry.Revoked{Key: key})
		}
	}
	return list, nil
}

func (s *Service) serialToRevoke(r RevokeRequest) ([]registry.Revoked, error) {
	digits := strings.ReplaceAll(r.Serial, ":", "")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("the serial number %q is not hexadecimal", r.Serial)
	}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	issuer := s.Bundle().Issuing
	if r.Issuer != "" {
		if issuer, err = parseKey(r.Issuer); err != nil {
			return nil, err
		}
	}
	if issuer.IsZero() {
		return nil, errors.New("say which authority's key signed the certificate (--issuer)")
	}
	return []registry.Revoked{{Issuer: issuer, Serial: hex.EncodeToString(b)}}, nil
}

func parseKey(text string) (identity.KeyHash, error) {
	var key identity.KeyHash
	if err := key.UnmarshalText([]byte(strings.ToLower(text))); err != nil || key.IsZero() {
		return key, fmt.Errorf("%q is no key: write the 64 hexadecimal digits of its SHA-256 (netport-server portals --json)", text)
	}
	return key, nil
}
