// Package admin is what the operator's commands do to the state of a server:
// enrol portals and relays, check and apply policies, show what is in force.
//
// A command asks the running daemon over its Unix socket. Where none runs, the
// command opens the state itself and asks a Service of its own: the same
// requests, the same answers. The lock of the state keeps the two apart.
package admin

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/server/internal/audit"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/enrol"
	"github.com/netport/netport/server/internal/pending"
	"github.com/netport/netport/server/internal/registry"
	"github.com/netport/netport/server/internal/store"
	"github.com/netport/netport/server/internal/ticketkey"
)

// Service works on one state. It owns the store; Close gives it back.
type Service struct {
	// Constant.
	Config   *config.Config
	Registry *registry.Registry
	Audit    *audit.Log
	Commits  *metrics.Histogram // how long it took to have changes on disk

	Desk *enrol.Desk

	store     store.Store
	pending   *pending.Queue     // what waits for a CA key that is elsewhere
	public    ed25519.PublicKey  // the policy key
	signer    ed25519.PrivateKey // its secret half; nil in strict mode: it is elsewhere
	authority authority
	now       func() time.Time
	log       *slog.Logger

	change sync.Mutex // held while the state changes and the change is made known
	// Who is told of what; set before the commands are served.
	changed            func(registry.Diff)
	revoked            func([]registry.Revoked)
	authoritiesChanged func()
	signed             func()
}

// Open opens the state of a configuration.
func Open(cfg *config.Config, log *slog.Logger) (*Service, error) {
	signer, public, err := loadPolicyKey(cfg)
	if err != nil {
		return nil, err
	}
	if err := local.CheckState(cfg.State); err != nil {
		return nil, err
	}
	bolt, err := store.Open(cfg.StateFile()) // and nobody else has it
	if err != nil {
		return nil, err
	}
	commits := newCommits()
	s := store.Timed{Store: bolt, Took: commits.Observe}
	r, err := openRegistry(cfg.Domain, s, signer, public)
	if err != nil {
		s.Close()
		return nil, err
	}
	service := &Service{
		Config: cfg, Registry: r, Commits: commits, Audit: audit.New(cfg.State, log), Desk: enrol.NewDesk(s, time.Now),
		store: s, public: public, signer: signer, now: time.Now, log: log,
		revoked: func([]registry.Revoked) {}, authoritiesChanged: func() {}, signed: func() {},
	}
	service.OnChange(func(registry.Diff) {})
	service.pending = pending.New(cfg.Domain, s, func() []*x509.Certificate { return service.Bundle().Trusted }, time.Now)
	if err := service.openAuthority(); err != nil {
		s.Close()
		return nil, err
	}
	return service, nil
}

// newCommits returns the histogram of Commits: of disks in memory to those that hang.
func newCommits() *metrics.Histogram {
	return metrics.NewHistogram(time.Millisecond, 5*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond, 2*time.Second, 10*time.Second)
}

// LoadSigner reads a policy or stamp key.
func LoadSigner(file string) (ed25519.PrivateKey, error) {
	key, err := identity.LoadKey(file)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: it is a key of type %T, an Ed25519 key is needed", file, key)
	}
	return signer, nil
}

// TicketKeys opens the keys of standing tickets, which are made the first time.
func (s *Service) TicketKeys() (*ticketkey.Keys, error) { return ticketkey.Open(s.store, s.now()) }

// Close closes the state.
func (s *Service) Close() error { return s.store.Close() }

// OnChange sets what is told of each change, in the order of the changes. It is
// called before the commands are served.
func (s *Service) OnChange(f func(registry.Diff)) {
	s.changed = func(d registry.Diff) {
		f(d)
		s.auditLapsed(d)
	}
}

// OnRevoke sets what is told of each list of revocations, after what OnChange has set.
func (s *Service) OnRevoke(f func([]registry.Revoked)) { s.revoked = f }

// OnAuthorities sets what is told that other authorities are trusted, or that another
// one issues.
func (s *Service) OnAuthorities(f func()) { s.authoritiesChanged = f }

// OnSigned sets what is told that an operator has brought what was signed elsewhere:
// who waits for that may ask again.
func (s *Service) OnSigned(f func()) { s.signed = f }

// broughtSigned wakes all who wait for an operator.
func (s *Service) broughtSigned() {
	s.Desk.Wake()
	s.signed()
}

// Commands returns the requests that work on a state, whether a daemon runs or
// not.
func (s *Service) Commands() map[string]local.Handler {
	return map[string]local.Handler{
		CommandAdmins:     handler(s.Admins),
		CommandAudit:      handler(s.Tail),
		CommandVerify:     handler(s.VerifyAudit),
		CommandIssue:      handlerWith(s.Issue),
		CommandInvite:     handlerWith(s.Invite),
		CommandEnrolments: handler(s.Enrolments),
		CommandApprove:    handlerWith(s.Approve),
		CommandReject:     handlerWith(s.Reject),
		CommandRevoke:     handlerWith(s.Revoke),
		CommandCAStatus:   handler(s.CAStatus),
		CommandCARoll:     handlerWith(s.CARoll),
		CommandCADrop:     handlerWith(s.CADrop),
		CommandCARequest:  handlerWith(s.CARequest),
		CommandCAInstall:  handlerWith(s.CAInstall),
		CommandCATrust:    handlerWith(s.CATrust),
		CommandCAPending:  handler(s.CAPending),
		CommandCASigned:   handlerWith(s.InstallCertificates),
		CommandPolicy:     handlerWith(s.Policy),
		CommandShow:       handler(s.Show),
		CommandDiff:       handler(s.Diff),
		CommandExplain:    handler(s.Explain),
		CommandAllow:      handlerWith(s.Allow),
		CommandAllowed:    handler(s.Allowed),
		CommandSignAsk:    handler(s.SignRequest),
		CommandInstall:    handlerWith(s.InstallSigned),
	}
}

// The names of the requests.
const (
	CommandAdmins     = "admins"
	CommandAudit      = "audit"
	CommandVerify     = "audit-verify"
	CommandIssue      = "issue"
	CommandInvite     = "invite"
	CommandEnrolments = "enrolments"
	CommandApprove    = "enrolments-approve"
	CommandReject     = "enrolments-reject"
	CommandRevoke     = "revoke"
	CommandCAStatus   = "ca-status"
	CommandCARoll     = "ca-roll"
	CommandCADrop     = "ca-drop"
	CommandCARequest  = "ca-request"
	CommandCAInstall  = "ca-install"
	CommandCATrust    = "ca-trust"
	CommandCAPending  = "ca-pending"
	CommandCASigned   = "ca-signed"
	CommandPolicy     = "policy"
	CommandShow       = "policy-show"
	CommandDiff       = "policy-diff"
	CommandExplain    = "explain"
	CommandAllow      = "allow"
	CommandAllowed    = "allowed"
	CommandSignAsk    = "policy-request"
	CommandInstall    = "policy-install"
)

func handler[A, R any](f func(A) (R, error)) local.Handler {
	return handlerWith(func(_ context.Context, args A) (R, error) { return f(args) })
}

func handlerWith[A, R any](f func(context.Context, A) (R, error)) local.Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, errors.New("the request is not understood: are the command and the daemon of the same version?")
		}
		return f(ctx, args)
	}
}
