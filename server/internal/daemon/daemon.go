// Package daemon is the running server: it wires the state, the hub, the
// listeners and the local socket together, and takes them down in order.
package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/logs"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/supervise"
	"github.com/netport/netport/server/internal/admin"
	"github.com/netport/netport/server/internal/config"
	"github.com/netport/netport/server/internal/hub"
	"github.com/netport/netport/server/internal/registry"
)

// Run runs a server until ctx is cancelled. It takes the configurations that r reads,
// which may be nil.
func Run(ctx context.Context, cfg *config.Config, log *slog.Logger, r *reload.Reloader[*config.Config]) error {
	held, err := local.HoldState(cfg.State)
	if err != nil {
		return err
	}
	defer held.Release()
	service, err := admin.Open(cfg, log)
	if err != nil {
		return err
	}
	defer service.Close()
	own, err := openOwn(cfg, service, log)
	if err != nil {
		return err
	}
	stamp, err := admin.LoadSigner(cfg.StampKey)
	if err != nil {
		return err
	}
	tickets, err := service.TicketKeys()
	if err != nil {
		return err
	}
	h := hub.New(hub.Options{
		Registry: service.Registry, Identities: service, Credentials: own.credentials, Stamp: stamp, Audit: service.Audit, Log: log,
		Tickets: tickets, Servers: cfg.Servers, MaxSessions: cfg.SessionsPerPortal,
	})
	service.OnChange(h.Changed)
	admins := newAdmins(service, own.credentials)
	service.OnRevoke(func(list []registry.Revoked) {
		own.revoke(list)
		h.Revoked(list)
		admins.recheck()
	})
	service.OnAuthorities(func() {
		own.authoritiesChanged()
		h.AuthoritiesChanged()
	})
	service.OnSigned(func() {
		own.poke()
		h.RenewAgain()
	})
	d := &daemon{hub: h, service: service, own: own, admins: admins, log: log, often: logs.Steady(log, logs.Often), seldom: logs.Steady(log, logs.Seldom), refusals: logs.NewBudget(logs.Often), tls: own.serverTLS(), started: time.Now().UTC().Truncate(time.Second), reload: r}
	return d.run(ctx, cfg, service)
}

// admit lets portals and relays in; of their keys the hub knows more.
func admit(p identity.Peer) error {
	if p.ID.Role != identity.Portal && p.ID.Role != identity.Relay {
		return fmt.Errorf("peer is %s, expected a portal or a relay", p.ID)
	}
	return nil
}

func firstPolicy(service *admin.Service, log *slog.Logger) error {
	result, err := service.ApplyFirst(context.Background())
	if err != nil {
		return err
	}
	if len(result.Failed) > 0 {
		return fmt.Errorf("apply the first policy: %d of its tests fail; the first: %s", len(result.Failed), result.Failed[0])
	}
	for _, w := range result.Warnings {
		log.Warn("policy", "warning", w)
	}
	applied := service.Registry.Applied()
	log.Info("policy in force", "version", applied.Version, "grants", service.Registry.Grants(), "file", applied.File)
	return nil
}

// daemon is what the connections share.
type daemon struct {
	hub      *hub.Hub
	service  *admin.Service
	own      *own
	admins   *admins
	log      *slog.Logger
	often    *slog.Logger // of what strangers cause
	seldom   *slog.Logger // of what stays wrong
	tls      *tls.Config
	waiting  atomic.Int64   // joins that wait for an operator
	refused  metrics.Counts // connections that were not let in, by why
	handed   atomic.Uint64  // connections that were handed over to a relay
	refusals *logs.Budget   // of records of the audit log about those who were not let in
	started  time.Time
	reload   *reload.Reloader[*config.Config]
}

func (d *daemon) run(ctx context.Context, cfg *config.Config, service *admin.Service) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	open, err := listen(ctx, cfg, d.log)
	if err != nil {
		return err
	}
	socket, err := local.Listen(cfg.Socket, d.log)
	if err != nil {
		open.close()
		return err
	}
	page, err := d.serveMetrics(cfg)
	if err != nil {
		open.close()
		return errors.Join(err, socket.Close())
	}
	// Only now that nothing else can go wrong is there something to keep.
	if err := firstPolicy(service, d.log); err != nil {
		open.close()
		if page != nil {
			page.Close()
		}
		return errors.Join(err, socket.Close())
	}
	for name, handler := range service.Commands() {
		socket.HandleLong(name, handler)
	}
	for name, handler := range d.views(cfg, service) {
		socket.Handle(name, handler)
		d.admins.views[name] = true
	}
	d.admins.answer = socket.Answer
	var parts sync.WaitGroup
	start := func(run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	// The audit log is the last to stop: the others still write to it.
	service.Audit.Follow()
	auditCtx, stopAudit := context.WithCancel(context.Background())
	var audit sync.WaitGroup
	audit.Go(func() { service.Audit.Run(auditCtx) })
	start(d.hub.Run)
	start(service.Run)
	start(d.own.Run)
	start(socket.Run)
	start(func(ctx context.Context) error {
		return d.reload.Run(ctx, func(c *config.Config) {
			cfg.Take(c)
			d.hub.SetMaxSessions(c.SessionsPerPortal)
		})
	})
	if page != nil {
		start(page.Run)
	}
	for _, c := range open.udp {
		d.log.Info("listening over UDP", "address", c.LocalAddr().String())
		start(func(ctx context.Context) error { return d.acceptUDP(ctx, c) })
	}
	for _, l := range open.tcp {
		d.log.Info("listening", "address", l.Addr().String(), "domain", cfg.Domain)
		start(func(ctx context.Context) error { return d.accept(ctx, l) })
	}
	parts.Go(func() { supervise.Run(ctx, d.log, d.look) })
	<-ctx.Done()
	d.log.Info("stopping")
	parts.Wait()
	stopAudit()
	audit.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// serveMetrics opens where the configuration wants metrics; nil: nowhere.
func (d *daemon) serveMetrics(cfg *config.Config) (*scrape.Server, error) {
	if cfg.Metrics.IsZero() {
		return nil, nil
	}
	return scrape.Listen(cfg.Metrics, func() *metrics.Page { return d.metrics(cfg) }, d.log)
}
