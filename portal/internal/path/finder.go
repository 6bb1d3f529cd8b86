package path

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/netport/netport/portal/internal/network"
	"github.com/netport/netport/portal/internal/path/packet"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/proxy"
)

// saveAfter is how long after a change the memory is written: a change rarely
// comes alone.
const saveAfter = 5 * time.Second

// Config is what a Finder is made from.
type Config struct {
	Credentials *identity.Credentials
	Network     *network.Watch  // nil: no change is noticed, and all networks are one
	Proxy       *proxy.Settings // through which relays are reached; nil: through none
	State       string          // file that keeps what is known of networks; "": nothing is kept
	// Renumbered is called when a relay sees a UDP leg at another IP address than
	// before: a NAT on the way has another one, and this machine was not told. It
	// must neither block nor call the Finder; nil: nobody wants to know.
	Renumbered func()
	Log        *slog.Logger
}

// Finder makes Legs and remembers what works with which relay, in which
// network. It is safe for concurrent use.
type Finder struct {
	Config
	memory  *memory
	sockets *packet.Sockets
	mirror  mirror
	began   time.Time // its monotonic reading makes counters rise
	base    uint64    // of counters, at began
	tasks   sync.WaitGroup
	hears   func(relay string) // nil: nobody wants to know

	mu    sync.Mutex // guards the following
	legs  map[*Leg]struct{}
	conns map[weak.Pointer[net.TCPConn]]netip.Addr // TCP connections by their local address, and ended ones
	prune int                                      // length of conns at which to look for ended ones
}

// NewFinder returns a Finder that remembers what its file says. Run must be
// called for it.
func NewFinder(cfg Config) *Finder {
	f := &Finder{
		Config: cfg, sockets: packet.NewSockets(cfg.Log), began: time.Now(),
		legs: make(map[*Leg]struct{}), conns: make(map[weak.Pointer[net.TCPConn]]netip.Addr), prune: firstPrune,
	}
	f.memory = newMemory(f.network)
	f.base = uint64(f.began.UnixMilli())
	if cfg.State != "" {
		counter, err := f.memory.load(cfg.State)
		if err != nil {
			cfg.Log.Warn("what was known of networks is not used", "error", err)
		}
		f.base = max(f.base, counter+1) // the clock may have been set back
	}
	return f
}

func (f *Finder) network() string {
	if f.Network == nil {
		return ""
	}
	return f.Network.Current().String()
}

// Listen has heard called whenever a relay has answered over TCP or UDP, with its name. It
// is for before the first Leg is made. heard must neither block nor call the Finder.
func (f *Finder) Listen(heard func(relay string)) { f.hears = heard }

// heard tells that a relay has answered.
func (f *Finder) heard(relay string) {
	if f.hears != nil {
		f.hears(relay)
	}
}

// counter returns a counter for binds and Meeting prefaces, above all before
// that are more than a millisecond old: the Unix time in milliseconds, unless the
// clock was set back.
func (f *Finder) counter() uint64 { return f.base + uint64(time.Since(f.began).Milliseconds()) }

// Run tells legs of changes of the network and writes down what is learned,
// until ctx is cancelled. It closes the UDP sockets at the end. Nobody may dial
// any more then.
func (f *Finder) Run(ctx context.Context) error {
	defer f.tasks.Wait()
	defer f.sockets.Close()
	var changes <-chan network.Change
	if f.Network != nil {
		c, end := f.Network.Changes()
		defer end()
		changes = c
	}
	save := time.NewTimer(0)
	save.Stop()
	defer save.Stop()
	waiting := false // save runs
	for {
		select {
		case <-ctx.Done():
			f.save()
			return nil
		case c := <-changes:
			f.moved(c)
		case <-f.memory.changed:
			if !waiting {
				waiting = true
				save.Reset(saveAfter)
			}
		case <-save.C:
			waiting = false
			f.save()
		}
	}
}

func (f *Finder) save() {
	if f.State == "" {
		return
	}
	if err := f.memory.save(f.State, f.counter()); err != nil {
		f.Log.Warn("what is known of networks is not kept", "error", err)
	}
}

// moved does what a change of the network asks for: UDP legs are bound anew, and
// TCP connections from addresses that this machine has no longer are closed, so
// that nobody has to wait until they are silent for long.
func (f *Finder) moved(c network.Change) {
	if !c.Network && len(c.New) == 0 && len(c.Gone) == 0 && !c.Link && c.Away == 0 {
		return // the wall clock was set
	}
	f.mirror.clear()
	f.mu.Lock()
	var legs []*Leg
	for l := range f.legs {
		legs = append(legs, l)
	}
	var dead []*net.TCPConn
	for p, local := range f.conns {
		if !slices.Contains(c.Gone, local) {
			continue
		}
		delete(f.conns, p)
		if conn := p.Value(); conn != nil {
			dead = append(dead, conn)
		}
	}
	f.mu.Unlock()
	for _, conn := range dead {
		f.Log.Debug("TCP connection closed: this machine has lost its address", "address", conn.LocalAddr().String())
		conn.Close()
	}
	for _, l := range legs {
		l.Refresh()
	}
}

// firstPrune is how many connections are followed before ended ones are looked
// for.
const firstPrune = 64

// follow has a connection closed when its local address has gone.
func (f *Finder) follow(conn *net.TCPConn) {
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.conns) >= f.prune {
		for p := range f.conns {
			if p.Value() == nil {
				delete(f.conns, p)
			}
		}
		f.prune = max(firstPrune, 2*len(f.conns))
	}
	f.conns[weak.Make(conn)] = local
}

// add has a leg told of changes.
func (f *Finder) add(l *Leg) {
	if f.Network != nil {
		l.release = f.Network.Hold()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.legs[l] = struct{}{}
}

func (f *Finder) remove(l *Leg) {
	if l.release != nil {
		l.release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.legs, l)
}
