// Package daemon is the running relay: it wires the rules of package lease to
// the edges, splice and udp, and to the server, and keeps the clock.
//
//	server --CreateSession, EndSession--> Daemon --> lease   which sessions there are
//	       <--SessionReady, SessionOver--        --> splice  their TCP legs
//	                                             --> udp     their UDP legs
//
// Sessions do not need the server: while it is away they go on, and end when
// their lifetime is over. What a server that comes back is told is which
// sessions are still there.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/source"
	"github.com/netport/netport/relay/internal/splice"
	"github.com/netport/netport/relay/internal/udp"
)

// sweepInterval is how often lifetimes and idle legs are looked at.
const sweepInterval = time.Second

// Daemon is a relay.
type Daemon struct {
	// Constant.
	cfg     config.Config
	id      identity.ID
	log     *slog.Logger
	started time.Time
	dialer  control.Dialer[wire.ToRelay, wire.FromRelay]
	leases  *lease.Table
	splice  *splice.Relay
	udp     *udp.Relay
	drops   *drop.Counters
	sources *source.Rules
	machine source.Machine

	mu       sync.Mutex // guards the following
	conn     *conn      // nil: no server
	server   string     // name of the server connected last
	stopping bool
	ended    lease.Traffic // of sessions that are gone
	load     wire.RelayLoad
	carried  uint64 // bytes, at the last sweep
}

// New returns a Daemon that has read its identity, but opened no port.
func New(cfg config.Config, log *slog.Logger) (*Daemon, error) {
	credentials, err := identity.Load(cfg.Certificate, cfg.Key, cfg.CA, identity.Relay, nil)
	if err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, id: credentials.ID, log: log, started: time.Now(), drops: new(drop.Counters)}
	d.dialer = control.Dialer[wire.ToRelay, wire.FromRelay]{
		Credentials: credentials, Software: "netport-relay " + command.Version, Parse: wire.ParseToRelay, Log: log,
	}
	d.leases = lease.NewTable(lease.Limits{
		First: cfg.First, Last: cfg.Last, Sessions: cfg.Capacity, PerPortal: cfg.SessionsPerPortal,
		SharedTCP: cfg.SharedTCP != 0, SharedUDP: cfg.SharedUDP != 0,
	})
	d.sources = &source.Rules{
		AllowLoopback: cfg.AllowLoopback, Own: d.machine.Has, Deny: cfg.Deny,
		Ports: source.Ports{First: cfg.First, Last: cfg.Last, SharedTCP: cfg.SharedTCP, SharedUDP: cfg.SharedUDP},
	}
	d.splice = splice.New(splice.Config{
		Listen: cfg.Addresses, Leases: d.leases, Sources: d.sources, Drops: d.drops, Log: log, Now: time.Now,
		TLS: credentials.ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, "")),
	})
	d.udp, err = udp.New(udp.Config{
		Listen: cfg.Addresses, Leases: d.leases, Sources: d.sources, Drops: d.drops, Log: log, Now: time.Now,
	})
	return d, err
}

// Run is the relay's life: until ctx is cancelled or something it cannot do
// without fails. Then all sessions end and the server is told.
func (d *Daemon) Run(ctx context.Context) error {
	commands, err := local.Listen(d.cfg.Socket, d.log)
	if err != nil {
		return err
	}
	commands.Handle("status", d.status)
	shared, err := d.share()
	if err != nil {
		commands.Close()
		return err
	}
	d.checkDescriptors()

	// All parts outlive ctx until the sessions have ended.
	parts, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var running sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(parts); err != nil {
				stop(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	start("serve TCP legs", func(ctx context.Context) error { return d.splice.Run(ctx, shared) })
	start("serve UDP legs", d.udp.Run)
	start("serve commands", commands.Run)
	start("keep the connection to the server", func(ctx context.Context) error {
		return d.dialer.Keep(ctx, control.Addresses(d.cfg.Servers), d.serve)
	})
	d.log.Info("relay runs", "name", d.id.Name, "ports", fmt.Sprintf("%d-%d", d.cfg.First, d.cfg.Last),
		"shared_tcp", d.cfg.SharedTCP, "shared_udp", d.cfg.SharedUDP, "tcp", "splice", "udp", d.udp.Plane().Name(), "loopback", d.cfg.AllowLoopback)

	d.watch(ctx, parts)
	d.endAll(wire.ReasonShutdown)
	failed := context.Cause(parts)
	stop(nil)
	running.Wait()
	d.log.Info("relay stopped")
	return failed
}

// share opens the shared ports that the configuration asks for.
func (d *Daemon) share() ([]*net.TCPListener, error) {
	var shared []*net.TCPListener
	if port := d.cfg.SharedTCP; port != 0 {
		var err error
		if shared, err = d.splice.Listen(port); err != nil {
			return nil, fmt.Errorf("open the shared TCP port %d: %w%s", port, err, portHint(port, err))
		}
	}
	if port := d.cfg.SharedUDP; port != 0 {
		if _, err := d.udp.Share(port); err != nil {
			for _, l := range shared {
				l.Close()
			}
			return nil, fmt.Errorf("open the shared UDP port %d: %w%s", port, err, portHint(port, err))
		}
	}
	return shared, nil
}

// checkDescriptors warns when the system's limit is below what the sessions
// of the configuration take: two for each of its addresses and, for one TCP
// connection, two more.
func (d *Daemon) checkDescriptors() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	need := uint64(d.cfg.Capacity) * uint64(2*max(1, len(d.cfg.Addresses))+2)
	if limit.Max < need {
		d.log.Warn("the limit of open files is below what the capacity needs: raise it (LimitNOFILE=) or lower capacity",
			"limit", limit.Max, "capacity", d.cfg.Capacity, "needs", need)
	}
}

// watch sweeps until ctx is cancelled or a part has failed.
func (d *Daemon) watch(ctx, parts context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			d.sweep(now)
		case <-ctx.Done():
			return
		case <-parts.Done():
			return
		}
	}
}

// sweep ends what is over, and tells the server how busy the relay is.
func (d *Daemon) sweep(now time.Time) {
	d.splice.Sweep()
	d.mu.Lock()
	total := d.ended
	d.mu.Unlock()
	for _, s := range d.leases.List() {
		t := d.splice.Traffic(s.ID).Plus(d.udp.Traffic(s.ID))
		d.leases.Renew(now, s.ID, t)
		total = total.Plus(t)
	}
	for _, id := range d.leases.Expired(now) {
		d.end(id, wire.ReasonIdle)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	carried := total[0] + total[1]
	load := wire.RelayLoad{Sessions: uint32(d.leases.Len()), Rate: (max(carried, d.carried) - d.carried) / uint64(sweepInterval/time.Second)}
	d.carried = carried
	if load != d.load {
		d.load = load
		d.sendLocked(load)
	}
}
