// Package daemon runs a portal: it makes the parts, joins them and stops them
// in order. It also answers the command line over the daemon's socket.
//
//	server --- control ---> grants ---> entry ---> peers (tunnels) <--- exit
//	              \____ sessions ______________________/
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/entry"
	"github.com/netport/netport/portal/internal/exit"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/keystore"
	"github.com/netport/netport/portal/internal/lan"
	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/path/direct"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/portmap"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/portal/internal/traffic"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/folder"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/logs"
	"github.com/netport/netport/proto/memory"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/supervise"
	"github.com/netport/netport/proto/wire"
)

// pathsFile, in the state folder, holds what was learned about ways to relays.
const pathsFile = "paths"

// Portal is a portal that runs, or will.
type Portal struct {
	config      config.Config
	credentials *identity.Credentials
	log         *slog.Logger
	socket      *local.Server
	started     time.Time

	network  *network.Watch
	state    *state.File
	folder   *local.State
	identity *keeper.Keeper // of credentials
	keeper   *grants.Keeper
	client   *control.Client
	finder   *path.Finder
	direct   *direct.Finder
	lan      *lan.Finder     // nil: not wanted
	mapper   *portmap.Mapper // nil: the configuration wants none
	pool     *peers.Pool
	entry    *entry.Entry
	exit     *exit.Exit
	calls    *calls
	opened   bool // owned by look: the listeners of kept grants were seen open
	traffic  traffic.Ledger
	live     atomic.Pointer[config.Config]
	reload   *reload.Reloader[config.Config] // nil: there is none
}

// New makes a portal from its configuration and takes its socket: it fails
// where another daemon has it, or where a file is missing or not as it should
// be. Run must follow.
func New(c config.Config, log *slog.Logger) (*Portal, error) {
	if err := folder.Make(c.State); err != nil { // the socket may lie there
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	socket, err := local.Listen(c.Socket, log)
	if err != nil {
		return nil, err
	}
	held, err := local.HoldState(c.State)
	if err != nil {
		socket.Close()
		return nil, err
	}
	p := &Portal{
		config: c, folder: held,
		log: log, socket: socket, started: time.Now(), calls: newCalls(), network: network.New(log),
	}
	p.live.Store(&c)
	file, kept := state.Open(c.State, log)
	p.state = file
	p.identity, err = keeper.Open(keeper.Config{
		Role: identity.Portal, Certificate: c.Certificate, Key: c.Key, Keys: &keystore.Store{TPM: c.TPM}, CA: c.CA, State: c.State, Policy: c.PolicyKey,
		RenewKey: c.RenewKey, Servers: func() []string { return p.client.Servers() }, Proxy: c.Proxy, Software: software(), Log: log,
	})
	if err != nil {
		socket.Close()
		held.Release()
		return nil, err
	}
	credentials := p.identity.Credentials()
	p.credentials = credentials
	p.keeper = grants.NewKeeper(grants.NewSet(identity.Peer{ID: credentials.ID, Key: credentials.Key()}, c.PolicyKey), credentials.Now, p.apply)
	p.finder = path.NewFinder(path.Config{
		Credentials: credentials, Network: p.network, Proxy: c.Proxy, State: filepath.Join(c.State, pathsFile),
		Renumbered: func() { p.client.Check() }, Log: log,
	})
	var mapPorts func([]portmap.Port)
	if c.Direct && c.PortMapping {
		p.mapper = portmap.New(portmap.Config{Network: p.network, Changed: func() { p.direct.Changed() }, Log: log})
		mapPorts = p.mapper.Keep
	}
	p.direct = direct.New(direct.Config{
		Paths: p.finder, Network: p.network, Map: mapPorts, Log: log,
		Server: func() netip.Addr { return p.client.Server().Addr() }, Seen: func() netip.Addr { return p.client.Seen() },
	})
	if p.mapper != nil {
		p.direct.Source(p.mapper.Candidates)
	}
	p.client = control.New(control.Config{
		Credentials: credentials, Identity: p.identity, Software: software(), Servers: c.Servers, Proxy: c.Proxy,
		Network: p.network.Current().String(), Grants: p.keeper,
		Measure: p.finder.Measure, Kept: kept, Changed: func() { file.Changed(); p.direct.Changed() }, Log: log,
	})
	p.exit = exit.New(exit.Config{
		Grants: p.keeper, List: c.Dial, Resolver: net.DefaultResolver, State: c.State, Now: credentials.Now,
		Cut: func(ids []wire.GrantID, reason wire.Reason) int { return p.pool.Cut(ids, reason) },
		Log: logs.Steady(log, logs.Often),
	})
	var neighbours peers.LAN
	if c.Direct && c.LAN {
		p.lan = lan.New(lan.Config{Network: p.network, Port: p.direct.Port, Log: log})
		neighbours = p.lan
	}
	p.pool = peers.New(peers.Config{
		Credentials: credentials, Server: p.client, Finder: peers.Paths(p.finder), Tickets: p.client.Tickets(), Joined: p.keeper.Joined,
		Paths: p.paths, Directs: peers.DirectPaths(p.direct), Machine: network.Machine(),
		LAN: neighbours, Secret: p.keeper.Secret, Partners: p.keeper.Peers,
		Account: p.account, Stalled: p.traffic.Stalled,
		Proves: p.keeper.Names, Names: p.keeper.NamesAny, Recheck: credentials.Recheck,
		Handler: p.exit, Budget: tunnel.NewBudget(buffers(memory.Limit())), Linger: c.Linger, Log: log,
	})
	p.entry = entry.New(entry.Config{Tunnels: p.pool, List: c.Listen, Users: c.Users, Reach: p.reaches, Log: log})
	p.identity.Hook(keeper.Hooks{
		Renewing: func(inUse, next identity.KeyHash) { p.keeper.Own(inUse, next) },
		Renewed:  p.renewed,
		Revoked:  p.pool.Review,
	})
	p.keeper.Restore(kept.Grants)
	p.serve()
	return p, nil
}

// Run runs the portal until ctx is cancelled. Then it accepts nothing more,
// lets what it carries finish for as long as the configuration says, closes its
// tunnels, tells the server, and removes its sockets.
func (p *Portal) Run(ctx context.Context) error {
	p.log.Info("portal running", "portal", p.credentials.ID.Name, "domain", p.credentials.ID.Domain, "socket", p.config.Socket, "proxy", p.config.Proxy.String(), "version", command.Version)
	// Each part stops before what it needs: first what takes work from outside,
	// then the tunnels, then what they run over, and the connection to the
	// server last, over which the sessions are given back.
	defer p.folder.Release()
	edge, tunnels, rest := newPart(), newPart(), newPart()
	defer rest.stop()
	defer tunnels.stop()
	defer edge.stop()
	failed := make(chan error, 1)
	edge.Go(func() {
		if err := p.socket.Run(edge.ctx); err != nil {
			failed <- err
		}
	})
	edge.Go(func() { p.entry.Run(edge.ctx) })
	tunnels.Go(func() { p.pool.Run(tunnels.ctx) })
	rest.Go(func() { p.finder.Run(rest.ctx) })
	rest.Go(func() { p.direct.Run(rest.ctx) })
	if p.mapper != nil {
		rest.Go(func() { p.mapper.Run(rest.ctx) })
	}
	if p.lan != nil {
		rest.Go(func() { p.lan.Run(rest.ctx) })
	}
	rest.Go(func() { p.client.Run(rest.ctx, p.pool) })
	rest.Go(func() { p.keeper.Run(rest.ctx) })
	rest.Go(func() { p.identity.Run(rest.ctx) })
	rest.Go(func() { p.exit.Run(rest.ctx) })
	rest.Go(func() { p.network.Run(rest.ctx) })
	rest.Go(func() { p.follow(rest.ctx) })
	rest.Go(func() { p.reload.Run(rest.ctx, p.take) })
	rest.Go(func() { p.state.Run(rest.ctx, p.kept) })
	rest.Go(func() { supervise.Run(ctx, p.log, p.look) })
	if p.config.MetricsFile != "" {
		rest.Go(func() { p.writeMetrics(rest.ctx) })
	}
	var err error
	select {
	case <-ctx.Done():
		p.log.Info("portal stopping")
	case err = <-failed:
	}
	edge.stop()
	p.drain()
	tunnels.stop() // what was accepted and is left ends with its tunnel
	edge.Wait()
	tunnels.Wait()
	rest.stop()
	rest.Wait()
	return err
}

// part is what of a portal stops together.
type part struct {
	sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
}

func newPart() *part {
	p := &part{}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// drain waits until what is carried has finished, for as long as the
// configuration allows.
func (p *Portal) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), p.current().Drain)
	defer cancel()
	p.pool.Drain(ctx)
}

// kept returns what the next start is to know.
func (p *Portal) kept() (k state.Kept) {
	k.Grants = p.keeper.Kept()
	p.client.Keep(&k)
	return k
}

// follow tells of changes of the network.
func (p *Portal) follow(ctx context.Context) {
	changes, stop := p.network.Changes()
	defer stop()
	for {
		select {
		case <-changes:
			p.client.NetworkChanged(p.network.Current().String())
			p.pool.Changed()
		case <-ctx.Done():
			return
		}
	}
}

// apply does what a change of the grants asks for.
func (p *Portal) apply(c grants.Change) {
	log := p.log.With("forward", c.Grant.Forward, "entry", c.Grant.Entry.Name, "listen", c.Grant.Listen.String(), "exit", c.Grant.Exit.Name, "target", c.Grant.Target.String())
	switch c.Kind {
	case grants.Begin:
		log.Info("forward granted")
	case grants.Renew:
		log.Debug("forward renewed")
	}
	if c.Grant.Entry.Name == p.credentials.ID.Name {
		p.entry.Apply(c)
	}
	if c.Grant.Exit.Name == p.credentials.ID.Name {
		p.exit.Apply(c)
	}
	if c.Kind == grants.End {
		cut := p.pool.Cut(c.IDs, c.Reason)
		log.Info("forward ended", "reason", c.Reason.String(), "cut", cut)
	}
	if why := c.Tightened(); p.cuts(c, why) {
		cut := p.pool.Cut(c.IDs, why)
		log.Info("forward has tighter terms: what ran begins anew", "reason", why.String(), "cut", cut)
	}
	p.pool.Review() // other keys may be named
}

// cuts reports whether this portal is the one to cut what runs, for terms that are
// tighter. The other must not do it too: what has begun anew would be cut again.
func (p *Portal) cuts(c grants.Change, why wire.Reason) bool {
	switch why {
	case wire.ReasonNone:
		return false
	case wire.ReasonClientForbidden: // the entry knows its clients
		return c.Grant.Entry.Name == p.credentials.ID.Name
	}
	return c.Grant.Exit.Name == p.credentials.ID.Name
}

// paths is peers.Config.Paths: the owner of this machine has the last word.
func (p *Portal) paths(peer string) grant.Direct {
	if !p.config.Direct {
		return grant.DirectNever
	}
	return p.keeper.Paths(peer)
}

// path says why what runs under these terms finds no path to a peer now; nil: it does, or
// one is looked for when it is needed.
func (p *Portal) path(peer string, t grant.Terms) error {
	if t.Direct != grant.DirectOnly {
		return nil
	}
	relayed, direct := p.pool.Path(peer)
	switch {
	case !p.config.Direct:
		return errors.New(`the policy allows direct paths only (direct = "only"), and this portal's configuration none (direct = false)`)
	case relayed && !direct:
		return fmt.Errorf("the policy allows direct paths only (direct = \"only\"), and none to %s has been found yet: see \"netport-portal status\"", peer)
	}
	return nil
}

// reaches reports whether another portal can be reached now.
func (p *Portal) reaches(peer string) bool {
	reached, _ := p.reach(peer)
	return reached
}

// renewed has the new certificate used: carriers that were made with the old one
// are made anew. Grants of the old key hold for as long as the server lets them.
func (p *Portal) renewed(before identity.KeyHash) {
	p.keeper.Own(p.credentials.Key(), before)
	p.pool.Renewed()
	p.client.Renewed()
}

func software() string { return "netport-portal/" + command.Version }

// reasonText is a reason as people read it, with what was said beside it.
func reasonText(r wire.Reason, detail string) string {
	if detail == "" {
		return r.String()
	}
	return r.String() + ": " + detail
}
