// Package daemon runs a portal: it makes the parts, joins them and stops them
// in order. It also answers the command line over the daemon's socket.
//
//	server --- control ---> grants ---> entry ---> peers (tunnels) <--- exit
//	              \____ sessions ______________________/
package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/config"
	"github.com/netport/netport/portal/internal/control"
	"github.com/netport/netport/portal/internal/entry"
	"github.com/netport/netport/portal/internal/exit"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/logs"
	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"
)

const (
	// bufferBudget bounds what all tunnels hold or promise to hold, in bytes.
	bufferBudget = 256 << 20
	// expiryWarning is how long before its end a certificate is spoken of.
	expiryWarning = 14 * 24 * time.Hour
	// pathsFile, in the state folder, holds what was learned about ways to relays.
	pathsFile = "paths"
)

// Portal is a portal that runs, or will.
type Portal struct {
	config      config.Config
	credentials *identity.Credentials
	self        identity.Peer // as grants name it
	log         *slog.Logger
	socket      *local.Server
	started     time.Time

	network *network.Watch
	state   *state.File
	keeper  *grants.Keeper
	client  *control.Client
	finder  *path.Finder
	pool    *peers.Pool
	entry   *entry.Entry
	exit    *exit.Exit
	calls   *calls
}

// New makes a portal from its configuration and takes its socket: it fails
// where another daemon has it, or where a file is missing or not as it should
// be. Run must follow.
func New(c config.Config, log *slog.Logger) (*Portal, error) {
	credentials, err := identity.Load(c.Certificate, c.Key, c.CA, identity.Portal, nil)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	socket, err := local.Listen(c.Socket, log)
	if err != nil {
		return nil, err
	}
	p := &Portal{
		config: c, credentials: credentials, self: identity.Peer{ID: credentials.ID, Key: credentials.Key},
		log: log, socket: socket, started: time.Now(), calls: newCalls(), network: network.New(log),
	}
	file, kept := state.Open(c.State, log)
	p.state = file
	p.keeper = grants.NewKeeper(grants.NewSet(p.self, c.PolicyKey), time.Now, p.apply)
	p.finder = path.NewFinder(path.Config{
		Credentials: credentials, Network: p.network, State: filepath.Join(c.State, pathsFile),
		Renumbered: func() { p.client.Check() }, Log: log,
	})
	p.client = control.New(control.Config{
		Credentials: credentials, Software: "netport-portal/" + command.Version, Servers: c.Servers,
		Network: p.network.Current().String(), Grants: p.keeper,
		Measure: p.finder.Measure, Kept: kept, Changed: file.Changed, Log: log,
	})
	p.exit = exit.New(p.keeper, c.Dial, net.DefaultResolver, logs.Steady(log))
	p.pool = peers.New(peers.Config{
		Credentials: credentials, Server: p.client, Finder: peers.Paths(p.finder), Tickets: p.client.Tickets(), Joined: p.keeper.Joined,
		Handler: p.exit, Budget: tunnel.NewBudget(bufferBudget), Linger: c.Linger, Log: log,
	})
	p.entry = entry.New(p.pool, c.Listen, log)
	p.keeper.Restore(kept.Grants)
	p.serve()
	return p, nil
}

// Run runs the portal until ctx is cancelled. Then it accepts nothing more,
// lets what it carries finish for as long as the configuration says, closes its
// tunnels, tells the server, and removes its sockets.
func (p *Portal) Run(ctx context.Context) error {
	p.log.Info("portal running", "portal", p.credentials.ID.Name, "domain", p.credentials.ID.Domain, "socket", p.config.Socket, "version", command.Version)
	p.warnExpiry(p.credentials.Leaf())
	// Each part stops before what it needs: first what takes work from outside,
	// then the tunnels, then what they run over, and the connection to the
	// server last, over which the sessions are given back.
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
	rest.Go(func() { p.client.Run(rest.ctx, p.pool) })
	rest.Go(func() { p.keeper.Run(rest.ctx) })
	rest.Go(func() { p.network.Run(rest.ctx) })
	rest.Go(func() { p.follow(rest.ctx) })
	rest.Go(func() { p.state.Run(rest.ctx, p.kept) })
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
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Drain)
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
	if c.Grant.Entry.Is(p.self) {
		p.entry.Apply(c)
	}
	if c.Kind == grants.End {
		cut := p.pool.Cut(c.IDs, c.Reason)
		log.Info("forward ended", "reason", c.Reason.String(), "cut", cut)
	}
}

func (p *Portal) warnExpiry(leaf *x509.Certificate) {
	left := time.Until(leaf.NotAfter)
	switch {
	case left <= 0:
		p.log.Error("this portal's certificate has expired: have it issued anew", "since", leaf.NotAfter.UTC().Format(time.RFC3339))
	case left < expiryWarning:
		p.log.Warn("this portal's certificate expires soon: have it issued anew", "at", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// reasonText is a reason as people read it, with what was said beside it.
func reasonText(r wire.Reason, detail string) string {
	if detail == "" {
		return r.String()
	}
	return r.String() + ": " + detail
}
