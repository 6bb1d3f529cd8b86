package direct

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/portal/internal/portmap"
	"github.com/netport/netport/proto/probe"
	"github.com/netport/netport/proto/wire"
)

// lookApart is how soon relays are asked again where they see this portal.
const lookApart = 2 * time.Second

// Config is what a Finder is made from.
type Config struct {
	Paths   *path.Finder
	Network *network.Watch // nil: this machine has no address to be reached at
	// Server returns where the server was reached last: nothing is probed there.
	Server func() netip.Addr
	// Seen returns where the server has seen this portal's connection come from.
	Seen func() netip.Addr
	// Map has the router of this network map these ports from now on, and no others, in
	// IPv4; nil: none are mapped. It must not block.
	Map func([]portmap.Port)
	Log *slog.Logger
}

// Finder makes Paths. Its methods are safe for concurrent use. Its lock is taken after a
// Path's.
type Finder struct {
	Config

	mu      sync.Mutex // guards the following
	paths   map[probe.ID]*Path
	quotas  map[spender]*quota
	ports   map[bool]*packet.Port // by whether they are of IPv6
	doors   map[bool]*door
	sources []func() []wire.Candidate
	looked  time.Time
}

// Tunnel is what a Path is for.
type Tunnel struct {
	Peer   string // name of the other portal
	Client bool   // this portal is the TLS client of the tunnel's first carrier
	Heard  bool   // what Peer is given was heard from neighbours, who may be anybody
	// Lasting keys are used again by other Paths. The counters of their probes follow the
	// clock, so that none is used twice, and what was caught long ago is good for nothing.
	Lasting bool
	Keys    probe.Keys
	TLS     *tls.Config // of connections that the peer dials, unless Client
	QUIC    *quic.Config
	// Offer is called with this portal's candidates, best first, whenever they have
	// changed, for the peer to be told. It must not block.
	Offer func([]wire.Candidate)
}

// New returns a Finder. Run must be called for it.
func New(cfg Config) *Finder {
	f := &Finder{
		Config: cfg,
		paths:  make(map[probe.ID]*Path), quotas: make(map[spender]*quota), ports: make(map[bool]*packet.Port), doors: make(map[bool]*door),
	}
	cfg.Paths.Mirror(f.Changed)
	cfg.Paths.Sockets().Serve(f)
	return f
}

// Run has all Paths follow the changes of this machine's network until ctx is cancelled.
func (f *Finder) Run(ctx context.Context) error {
	defer f.Paths.Sockets().Serve(nil)
	defer f.Paths.Mirror(nil)
	var changes <-chan network.Change
	if f.Network != nil {
		c, end := f.Network.Changes()
		defer end()
		changes = c
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-changes:
			if c.Network || len(c.New) > 0 || len(c.Gone) > 0 || c.Link || c.Away > 0 {
				f.moved(c.Network)
			}
		}
	}
}

// moved has everything looked for anew: this portal is elsewhere, or something of its machine
// has changed, which gives nothing back: interfaces of containers come and go all day.
func (f *Finder) moved(elsewhere bool) {
	f.mu.Lock()
	for _, q := range f.quotas {
		if elsewhere {
			q.refill()
		}
	}
	all := f.allLocked()
	f.mu.Unlock()
	for _, p := range all {
		p.Refresh()
	}
}

// Source adds what else knows addresses of this portal: get returns them as they are
// now. Whenever they change, Changed is to be called.
func (f *Finder) Source(get func() []wire.Candidate) {
	f.mu.Lock()
	f.sources = append(f.sources, get)
	f.mu.Unlock()
	f.Changed()
}

// Changed tells that this portal may have other addresses. It does not block.
func (f *Finder) Changed() {
	f.mu.Lock()
	all := f.allLocked()
	f.mu.Unlock()
	for _, p := range all {
		p.renew()
	}
}

func (f *Finder) allLocked() (list []*Path) {
	for _, p := range f.paths {
		list = append(list, p)
	}
	return list
}

// Open begins to look for direct ways for a tunnel. The Path must be closed.
func (f *Finder) Open(t Tunnel) *Path {
	p := newPath(f, t)
	f.mu.Lock()
	by := spender{t.Peer, t.Heard}
	q := f.quotas[by]
	if q == nil {
		f.tidyLocked()
		q = newQuota()
		f.quotas[by] = q
	}
	p.search.quota = q
	f.paths[p.own] = p
	f.mu.Unlock()
	f.look()
	go p.run()
	return p
}

// tidyLocked forgets the quotas that are full and of peers without a Path. What is
// left belongs to peers that are named by grants.
func (f *Finder) tidyLocked() {
	used := make(map[*quota]bool)
	for _, p := range f.paths {
		used[p.search.quota] = true
	}
	for by, q := range f.quotas {
		if !used[q] && q.full(time.Now()) {
			delete(f.quotas, by)
		}
	}
}

func (f *Finder) remove(p *Path) {
	f.mu.Lock()
	if f.paths[p.own] == p {
		delete(f.paths, p.own)
	}
	var unused []*door
	if len(f.paths) == 0 {
		for _, port := range f.ports {
			port.Release()
		}
		clear(f.ports)
		for _, d := range f.doors {
			unused = append(unused, d)
		}
		clear(f.doors)
		f.mapLocked()
	}
	f.mu.Unlock()
	for _, d := range unused {
		d.close()
	}
}

// port returns the shared socket of an IP version, held open while there is a Path; nil:
// there is none.
func (f *Finder) port(of netip.Addr) *packet.Port {
	f.mu.Lock()
	defer f.mu.Unlock()
	if port := f.ports[of.Is6()]; port != nil || len(f.paths) == 0 {
		return port
	}
	port, err := f.Paths.Sockets().Hold(of)
	if err != nil {
		f.Log.Debug("no direct ways", "address", of.String(), "error", err)
		return nil
	}
	f.ports[of.Is6()] = port
	return port
}

// Port returns the port of the UDP socket at which other portals reach an address of this
// machine; 0: there is none, or no Path is open.
func (f *Finder) Port(of netip.Addr) uint16 {
	if p := f.port(of); p != nil {
		return p.Local()
	}
	return 0
}

// look has relays say where they see this portal.
func (f *Finder) look() {
	f.mu.Lock()
	now := time.Now()
	soon := now.Sub(f.looked) < lookApart
	if !soon {
		f.looked = now
	}
	f.mu.Unlock()
	if !soon {
		f.Paths.Look()
	}
}

// Probe implements packet.Prober: what has no id of a tunnel, or is not proven by its key,
// is met with silence.
func (f *Finder) Probe(at *packet.Port, from netip.AddrPort, b []byte) {
	id, _ := probe.IDOf(b)
	f.mu.Lock()
	p := f.paths[id]
	f.mu.Unlock()
	if p == nil {
		return
	}
	if m, err := probe.Open(b, p.Keys.Key); err == nil {
		p.take(at, from, m)
	}
}

// Replaced implements packet.Prober.
func (f *Finder) Replaced() { f.Changed() }
