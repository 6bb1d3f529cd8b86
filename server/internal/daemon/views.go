package daemon

import (
	"context"
	"encoding/json"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/hub"
	"github.com/netport/netport/server/internal/registry"
)

// The names of the requests that only a running server answers.
const (
	CommandStatus   = "status"
	CommandPortals  = "portals"
	CommandRelays   = "relays"
	CommandSessions = "sessions"
)

// Status is the server in short.
type Status struct {
	Version  string    `json:"version"`
	Domain   string    `json:"domain"`
	Address  string    `json:"address"`
	Listen   []string  `json:"listen"`
	Since    time.Time `json:"since"`
	Policy   uint64    `json:"policy_version"`
	File     string    `json:"policy_file"`
	Applied  time.Time `json:"policy_applied,omitzero"`
	Grants   int       `json:"grants"`
	Portals  int       `json:"portals"`
	Online   int       `json:"portals_online"`
	Relays   int       `json:"relays"`
	Usable   int       `json:"relays_online"`
	Sessions int       `json:"sessions"`
	Missing  uint64    `json:"audit_missing"`          // records that cannot be written now
	Damage   string    `json:"audit_damage,omitempty"` // where the audit log was found broken at the start
	Expires  time.Time `json:"certificate_expires"`
	// Soon names the certificates of the server and of CAs that end soon, and when.
	Soon []string `json:"ending_soon,omitempty"`
	// Ending counts the portals and relays whose certificates have lived more than
	// five sixths of their lives and were not renewed, and EndingNames names a few.
	Ending      int      `json:"certificates_ending"`
	EndingNames []string `json:"certificates_ending_names"`
	Waiting     int      `json:"waiting_for_approval"`
	// Pending counts the certificates that wait for a CA key that is elsewhere.
	Pending      int       `json:"certificates_waiting"`
	PendingSince time.Time `json:"certificates_waiting_since,omitzero"`
	// Contested are the identities that two machines use at the same time, now or within
	// the last hour.
	Contested []hub.Contested `json:"contested"`
	// Lost is how many revocations portals or relays hold that this state lacks: it is an
	// old one.
	Lost uint64 `json:"revocations_lost,omitempty"`
	// In strict mode: grants that are in force for nobody before they are signed, and
	// whether the authorities are to be signed too.
	Strict              bool `json:"strict"`
	Unsigned            int  `json:"grants_not_signed"`
	UnsignedAuthorities bool `json:"authorities_not_signed"`
	// UnsignedPortals are those of which a key is new since the policy was signed.
	UnsignedPortals []string `json:"portals_not_signed"`
	// Reload is what came of the last time that the configuration was read anew.
	Reload *reload.Report `json:"reload,omitempty"`
}

func (d *daemon) views(cfg *config.Config, service *admin.Service) map[string]local.Handler {
	since := time.Now().UTC().Truncate(time.Second)
	view := func(f func() any) local.Handler {
		return func(context.Context, json.RawMessage) (any, error) { return f(), nil }
	}
	return map[string]local.Handler{
		CommandStatus:   view(func() any { return d.status(cfg, service, since) }),
		CommandPortals:  view(func() any { return d.hub.Portals() }),
		CommandRelays:   view(func() any { return d.hub.Relays() }),
		CommandSessions: view(func() any { return d.hub.Sessions() }),
	}
}

func (d *daemon) status(cfg *config.Config, service *admin.Service, since time.Time) Status {
	applied := service.Registry.Applied()
	s := Status{
		Version: command.Version, Domain: cfg.Domain, Address: cfg.Address, Listen: cfg.Listen, Since: since,
		Policy: applied.Version, File: applied.File, Applied: applied.Time, Grants: service.Registry.Grants(),
		Sessions: len(d.hub.Sessions()), Missing: service.Audit.Missing(), Damage: service.Audit.Damage(), Expires: d.own.credentials.Leaf().NotAfter,
	}
	s.Contested, s.Lost = d.hub.Contests(), service.Registry.Lost()
	s.Reload = d.reload.Last()
	s.Soon = d.own.soon(time.Now())
	s.Strict = service.Registry.Strict()
	s.Unsigned, s.UnsignedAuthorities, s.UnsignedPortals = service.Unsigned()
	var err error
	if s.Pending, s.PendingSince, err = service.Waiting(); err != nil {
		d.log.Error("not known which certificates wait", "error", err)
	}
	now := time.Now()
	note := func(name string, e registry.Enrolment) {
		if certificateState(e, now) == certificateValid {
			return
		}
		if s.Ending++; len(s.EndingNames) < endingNames {
			s.EndingNames = append(s.EndingNames, name)
		}
	}
	for _, p := range d.hub.Portals() {
		s.Portals++
		note(p.Name, p.Enrolment)
		if p.Online {
			s.Online++
		}
	}
	for _, r := range d.hub.Relays() {
		s.Relays++
		note(r.Name, r.Enrolment)
		if r.State != nil && r.State.Ready {
			s.Usable++
		}
	}
	if tokens, err := service.Desk.Tokens(); err == nil {
		for _, t := range tokens {
			s.Waiting += len(t.Waiting)
		}
	}
	return s
}

// endingNames is how many of those whose certificates end are named.
const endingNames = 5
