// Package daemon is the running relay: it wires the rules of package lease to
// the edges, splice, udp and kernel, and to the server, and keeps the clock.
//
//	server --CreateSession, EndSession--> Daemon --> lease   which sessions there are
//	       <--SessionReady, SessionOver--        --> splice  their TCP legs in user space
//	                                             --> udp     their UDP legs
//	                                             --> kernel  their TCP legs in packet mode
//
// Sessions do not need the server: while it is away they go on, and end when
// their lifetime is over. What a server that comes back is told is which
// sessions are still there.
//
// Nor do they need the daemon, if there is a kernel plane whose state is pinned:
// what it forwards goes on when the daemon stops or is killed, and the next one
// takes it over.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/metrics/scrape"
	"github.com/netport/netport/proto/privilege"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/supervise"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
	"github.com/netport/netport/relay/internal/drop"
	"github.com/netport/netport/relay/internal/kernel"
	"github.com/netport/netport/relay/internal/lease"
	"github.com/netport/netport/relay/internal/rawip"
	"github.com/netport/netport/relay/internal/source"
	"github.com/netport/netport/relay/internal/splice"
	"github.com/netport/netport/relay/internal/udp"
)

// sweepInterval is how often lifetimes and idle legs are looked at.
const sweepInterval = time.Second

// Daemon is a relay.
type Daemon struct {
	// Constant.
	cfg         config.Config
	credentials *identity.Credentials
	identity    *keeper.Keeper // of credentials; set by Run
	id          identity.ID
	log         *slog.Logger
	secure      func(keep privilege.Set) error
	started     time.Time
	dialer      control.Dialer[wire.ToRelay, wire.FromRelay]
	drops       *drop.Counters
	sources     *source.Rules
	machine     source.Machine
	live        atomic.Pointer[config.Config]
	reload      *reload.Reloader[config.Config] // nil: there is none

	// Set by openParts.
	leases  *lease.Table
	splice  *splice.Relay
	udp     *udp.Relay
	plane   *bpf.Kernel // nil: user space carries everything
	noPlane string      // why
	kernel  *kernel.Relay
	sender  *rawip.Sender  // of kernel
	scrape  *scrape.Server // nil: metrics are not served
	counts  counts

	// taking is held while the session of a ticket is made or ended: it can be made
	// again, with the same id, at any time.
	taking     sync.Mutex
	ticketKeys []wire.Secret // owned by what serves the connection

	mu       sync.Mutex    // guards the following
	conn     *conn         // nil: no server
	server   string        // name of the server connected last
	others   int           // relays that it knows beside this one
	draining bool          // no session is taken any more, and the server was told
	stopping bool          // nor any more
	ending   int           // sessions that have ended, of which the server is yet to be told
	ended    lease.Traffic // of sessions that are gone
	load     wire.RelayLoad
	carried  uint64    // bytes, at the last sweep
	swept    time.Time // when
}

// New returns a Daemon that has opened nothing. When everything is open secure is called, to give back all capabilities but those
// that are still needed.
func New(cfg config.Config, log *slog.Logger, secure func(keep privilege.Set) error) *Daemon {
	d := &Daemon{cfg: cfg, log: log, secure: secure, started: time.Now(), swept: time.Now(), drops: new(drop.Counters)}
	d.live.Store(&cfg)
	d.sources = &source.Rules{
		AllowLoopback: cfg.AllowLoopback, Own: d.machine.Has, Deny: cfg.Deny,
		Ports: source.Ports{First: cfg.First, Last: cfg.Last, SharedTCP: cfg.SharedTCP, SharedUDP: cfg.SharedUDP},
	}
	return d
}

// openIdentity reads what the relay proves itself with. Its socket, and with it the
// state folder, are this process's by now.
func (d *Daemon) openIdentity() error {
	software := "netport-relay/" + command.Version
	k, err := keeper.Open(keeper.Config{
		Role: identity.Relay, Certificate: d.cfg.Certificate, Key: d.cfg.Key, CA: d.cfg.CA, State: d.cfg.State, Policy: d.cfg.PolicyKey,
		RenewKey: d.cfg.RenewKey, Servers: func() []string { return d.cfg.Servers }, Proxy: d.cfg.Proxy, Software: software, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.identity, d.credentials = k, k.Credentials()
	d.id = d.credentials.ID
	d.dialer = control.Dialer[wire.ToRelay, wire.FromRelay]{
		Credentials: d.credentials, Software: software, Parse: wire.ParseToRelay, Log: d.log, Proxy: d.cfg.Proxy, Told: k.Told, Refused: k.Refused,
	}
	return nil
}

// openParts makes the parts of the relay, without the ports of sessions.
func (d *Daemon) openParts() (err error) {
	if d.plane, d.noPlane, err = d.openKernel(); err != nil {
		return err
	}
	limits := lease.Limits{
		First: d.cfg.First, Last: d.cfg.Last, Sessions: d.cfg.Capacity, PerPortal: d.cfg.SessionsPerPortal,
		SharedTCP: d.cfg.SharedTCP != 0, SharedUDP: d.cfg.SharedUDP != 0,
	}
	legs := udp.Config{
		Listen: d.cfg.Addresses, Sources: d.sources, Drops: d.drops, Log: d.log, Now: time.Now,
		Packets: d.cfg.PacketsPerSecond, Bytes: d.cfg.BytesPerSecond, Take: d.take,
	}
	if d.plane != nil {
		limits.Packet = &lease.Packet{First: d.cfg.PacketFirst, Last: d.cfg.PacketLast, Sources: d.sources, Kernel: d.plane}
		if d.cfg.PacketFirst != 0 {
			limits.Last = d.cfg.PacketFirst - 1
		}
		legs.Kernel = d.plane
	}
	d.leases = lease.NewTable(limits)
	d.splice = splice.New(splice.Config{
		Listen: d.cfg.Addresses, Leases: d.leases, Sources: d.sources, Drops: d.drops, Log: d.log, Now: time.Now,
		TLS:     d.credentials.ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, "")),
		Recheck: d.credentials.Recheck, Take: d.take,
	})
	legs.Leases = d.leases
	if d.udp, err = udp.New(legs); err != nil || d.plane == nil {
		return err
	}
	d.kernel = kernel.New(kernel.Config{
		Plane: d.plane, Sender: d.sender, Leases: d.leases, Capacity: pairsPerSession * d.cfg.Capacity,
		Packets: d.cfg.PacketsPerSecond, Bytes: d.cfg.BytesPerSecond,
		Expired: d.udp.Renew, Drops: d.drops, Log: d.log, Now: time.Now,
	})
	return nil
}

// closePlane lets go of the kernel plane; what is pinned goes on.
func (d *Daemon) closePlane() {
	if d.sender != nil {
		if err := d.sender.Close(); err != nil {
			d.log.Error("raw sockets not closed", "error", err)
		}
	}
	if d.plane != nil {
		if err := d.plane.Close(); err != nil {
			d.log.Error("kernel plane not closed", "error", err)
		}
	}
}

// Run is the relay's life: until ctx is cancelled or something it cannot do
// without fails. Then its sessions are moved elsewhere, as far as the server
// can, the others end and the server is told. What the kernel can carry on with
// alone stays as it is.
func (d *Daemon) Run(ctx context.Context) error {
	commands, err := local.Listen(d.cfg.Socket, d.log)
	if err != nil {
		return err
	}
	held, err := local.HoldState(d.cfg.State)
	if err != nil {
		commands.Close()
		return err
	}
	defer held.Release()
	commands.Handle("status", d.status)
	commands.HandleLong("drain", d.empty)
	defer d.closePlane()
	if err = d.openIdentity(); err == nil {
		err = d.openParts()
	}
	if err == nil && !d.cfg.Metrics.IsZero() {
		d.scrape, err = scrape.Listen(d.cfg.Metrics, d.Metrics, d.log)
	}
	var shared []*net.TCPListener
	var handed *local.Socket
	if err == nil {
		shared, handed, err = d.share()
	}
	if err != nil {
		if d.scrape != nil {
			d.scrape.Close()
		}
		commands.Close()
		return err
	}
	d.checkDescriptors()
	d.loadTicketKeys()
	d.adopt()
	if err := d.dropPrivileges(); err != nil {
		d.log.Warn("capabilities are not given back", "error", err)
	}

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
	start("serve TCP legs", func(ctx context.Context) error { return d.splice.Run(ctx, shared, handed) })
	start("serve UDP legs", d.udp.Run)
	if d.plane != nil {
		start("serve the kernel plane", d.kernel.Run)
	}
	start("serve commands", commands.Run)
	if d.scrape != nil {
		start("serve metrics", d.scrape.Run)
	}
	start("read the configuration anew", func(ctx context.Context) error { return d.reload.Run(ctx, d.takeConfig) })
	d.identity.Hook(keeper.Hooks{Renewed: d.renewed, Revoked: d.splice.Review})
	start("keep the certificate", d.identity.Run)
	start("keep the connection to the server", func(ctx context.Context) error {
		return d.dialer.Keep(ctx, control.Addresses(d.cfg.Servers), d.serve)
	})
	mode, why := d.mode()
	d.log.Info("relay runs", "name", d.id.Name, "ports", fmt.Sprintf("%d-%d", d.cfg.First, d.cfg.Last),
		"shared_tcp", d.cfg.SharedTCP, "take_over", d.cfg.TakeOver, "shared_udp", d.cfg.SharedUDP, "mode", mode, "why", why, "proxy", d.cfg.Proxy.String(), "loopback", d.cfg.AllowLoopback)

	running.Go(func() { supervise.Run(ctx, d.log, d.look) })
	d.watch(ctx, parts)
	d.moveAway(parts)
	d.stop()
	failed := context.Cause(parts)
	stop(nil)
	running.Wait()
	d.log.Info("relay stopped")
	return failed
}

// renewed has the server see the new certificate.
func (d *Daemon) renewed(identity.KeyHash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close(wire.ReasonReplaced, "certificate renewed")
	}
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
	if d.plane != nil {
		d.kernel.Sweep()
	}
	d.mu.Lock()
	total := d.ended
	d.mu.Unlock()
	for _, s := range d.leases.List() {
		t := d.traffic(s.ID)
		d.leases.Renew(now, s.ID, t)
		d.settle(s.ID)
		total = total.Plus(t)
	}
	for _, id := range d.leases.Expired(now) {
		d.end(id, wire.ReasonIdle)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.swept = now
	carried := total[0] + total[1]
	load := wire.RelayLoad{Sessions: uint32(d.leases.Len()), Rate: (max(carried, d.carried) - d.carried) / uint64(sweepInterval/time.Second)}
	d.carried = carried
	if load != d.load {
		d.load = load
		d.sendLocked(load)
	}
}

// traffic returns what a session has carried so far, by all ways.
func (d *Daemon) traffic(id wire.SessionID) lease.Traffic {
	t := d.splice.Traffic(id).Plus(d.udp.Traffic(id))
	if d.plane != nil {
		t = t.Plus(d.kernel.Traffic(id))
	}
	return t
}
