// Package exit dials the targets of this portal's grants for its peers. It is
// the place where a permission is enforced: whatever a peer asks for, nothing
// is dialled that a valid grant does not name, for this peer, at this moment,
// and that the portal's own list does not admit.
//
// An Exit owns a connection until it has returned it; then the tunnel does.
package exit

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/proxyheader"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/portal/internal/vanish"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/metrics"
	"github.com/netport/netport/proto/wire"
)

const (
	// dialTimeout bounds one dial from the look-up of the name to the
	// connection.
	dialTimeout = 10 * time.Second
	// usageEvery is how often the bytes of the month are kept at most: so much is
	// lost by a portal that is killed.
	usageEvery = 30 * time.Second
)

// Admitter decides about a grant; *grants.Keeper does.
type Admitter interface {
	Admit(peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error)
}

// Resolver looks names up; *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// dialer dials addresses; *net.Dialer does.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Config is what an Exit is made from.
type Config struct {
	Grants   Admitter
	List     allow.List // of what the portal's owner lets it dial
	Resolver Resolver
	State    string // folder in which the bytes of the month are kept
	Now      func() time.Time
	// Cut resets what runs under any of the grants and returns how much that was.
	Cut func(ids []wire.GrantID, reason wire.Reason) int
	Log *slog.Logger // peers decide how much is written there
}

// Exit is the tunnel.Handler of a portal. Its methods are safe for concurrent
// use.
type Exit struct {
	Config
	dialer   dialer
	now      func() time.Time
	log      *slog.Logger
	dialing  crowd
	vanished *vanish.Watch // of targets elsewhere
	usage    *usage
	nudge    chan struct{} // capacity 1: over has somebody

	unreachable atomic.Uint64
	oversized   atomic.Uint64
	limitedOut  atomic.Uint64
	list        atomic.Pointer[allow.List] // Config.List, as it is now
	failed      metrics.Counts             // dials that failed, by why
	forbidden   metrics.Counts             // what peers asked for and no grant or owner allows, by why

	mu     sync.Mutex // guards the following
	limits map[grants.Pair]*limits
	over   []*limits // whose month is used up, each once
}

var _ tunnel.Handler = (*Exit)(nil)

// New returns an Exit; Run must follow.
func New(c Config) *Exit {
	x := &Exit{
		Config: c, now: c.Now, log: c.Log,
		dialer:   &net.Dialer{KeepAlive: -1, ControlContext: begun},
		vanished: vanish.New(),
		usage:    openUsage(c.State, c.Log), nudge: make(chan struct{}, 1), limits: make(map[grants.Pair]*limits),
	}
	x.SetList(c.List)
	return x
}

// SetList changes Config.List, for what is dialled from now on.
func (x *Exit) SetList(l allow.List) { x.list.Store(&l) }

// Run keeps the bytes of the month, and ends what has used them up, until ctx is
// cancelled.
func (x *Exit) Run(ctx context.Context) error {
	defer x.usage.write()
	tick := time.NewTicker(usageEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.nudge:
			x.mu.Lock()
			over := x.over
			x.over = nil
			x.mu.Unlock()
			x.usage.write() // before anybody knows: whoever is cut may kill this portal
			for _, l := range over {
				l.cut()
			}
		case <-tick.C:
			x.usage.turn(x.now())
			x.usage.write()
		case <-ctx.Done():
			return nil
		}
	}
}

// tell has what is open under limits ended.
func (x *Exit) tell(l *limits) {
	x.mu.Lock()
	x.over = append(x.over, l)
	x.mu.Unlock()
	select {
	case x.nudge <- struct{}{}:
	default:
	}
}

// Apply takes a change of the grants.
func (x *Exit) Apply(c grants.Change) {
	pair := grants.PairOf(c.Grant.Permission)
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.limits[pair]
	switch {
	case l == nil:
	case c.Kind == grants.End:
		delete(x.limits, pair) // what is open has its own hand on it
	default:
		if err := l.set(c.Grant); err != nil {
			x.log.Warn("limits of a forward not changed", "forward", c.Grant.Forward, "error", err)
		}
	}
}

// Counters are what an Exit has counted since it began.
type Counters struct {
	Unreachable uint64 // datagrams whose target had no one listening (ICMP port unreachable)
	Oversized   uint64 // datagrams larger than the way to their target takes
	Limited     uint64 // datagrams above the rate or the volume of their grants
}

// Counters returns what was counted.
func (x *Exit) Counters() Counters {
	return Counters{Unreachable: x.unreachable.Load(), Oversized: x.oversized.Load(), Limited: x.limitedOut.Load()}
}

// Refused returns how often peers asked in vain, by why: because no grant or this
// portal's owner allows it, or because the target could not be dialled.
func (x *Exit) Refused() (forbidden, failed map[string]uint64) {
	return x.forbidden.All(), x.failed.All()
}

// Use is what a pair of ends uses of its limits.
type Use struct {
	Open  uint32    // streams and flows
	Month uint64    // bytes in the month; counted only where a grant limits them
	Until time.Time // end of the month
}

// Use returns what the pair of a grant uses of its limits.
func (x *Exit) Use(g grant.Grant) Use {
	x.usage.turn(x.now())
	u := Use{Until: x.usage.next()}
	x.mu.Lock()
	l := x.limits[grants.PairOf(g.Permission)]
	x.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		u.Open = l.open
		l.mu.Unlock()
	}
	if g.Month != 0 {
		u.Month = x.usage.read(grants.PairOf(g.Permission))
	}
	return u
}

// Open implements tunnel.Handler.
func (x *Exit) Open(ctx context.Context, by tunnel.From, open wire.Open) (net.Conn, error) {
	from, err := peerOf(by.Peer)
	if err != nil {
		return nil, x.refuse(from, open, grant.Grant{}, &grants.Refused{Reason: wire.ReasonWrongPeer, Detail: err.Error()})
	}
	g, err := x.Grants.Admit(from, open.Grant, open.Signed)
	if err == nil {
		err = x.check(by.Direct, open, g)
	}
	var l *limits
	if err == nil && limited(g.Terms) {
		if l, err = x.limitsOf(g); err == nil {
			err = l.begin(ctx, open.Kind, open.Grant)
		}
	}
	var conn net.Conn
	if err == nil {
		conn, err = x.dial(ctx, g)
	}
	if err == nil && open.Kind == wire.OpenStream {
		err = introduce(conn, g, open.Source)
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, x.refuse(from, open, g, err)
	}
	x.log.Debug("target dialled", "peer", from.ID.Name, "forward", g.Forward, "target", g.Target.String(), "address", conn.RemoteAddr().String())
	switch {
	case l == nil || !metered(g.Terms) || open.Kind == wire.OpenProbe:
		return conn, nil
	case open.Kind == wire.OpenFlow:
		return l.flow(conn), nil
	}
	return l.stream(conn), nil
}

// check says why what a peer asks for is not what its grant is for, or not what
// this portal's owner admits.
func (x *Exit) check(direct bool, open wire.Open, g grant.Grant) error {
	if open.Kind != wire.OpenProbe && (open.Kind == wire.OpenFlow) != g.Target.Datagram() {
		return &grants.Refused{Reason: wire.ReasonNotGranted, Detail: "the peer asks for datagrams of a stream's grant, or for a stream of a datagram's"}
	}
	if open.Kind != wire.OpenProbe && !g.Clients.Allow(open.Source.Addr()) {
		return &grants.Refused{Reason: wire.ReasonClientForbidden, Detail: fmt.Sprintf("the client %s is none of those granted: %s", open.Source.Addr(), g.Clients)}
	}
	switch {
	case g.Direct == grant.DirectOnly && !direct:
		return &grants.Refused{Reason: wire.ReasonNotDirect, Detail: "the policy allows direct paths only (direct = \"only\"), and the peer asks by a relay"}
	case g.Direct == grant.DirectNever && direct:
		return &grants.Refused{Reason: wire.ReasonNotDirect, Detail: "the policy allows no direct paths (direct = \"never\"), and the peer asks by one"}
	}
	return x.list.Load().Target(g.Target)
}

// Try dials the target of a grant of this portal and hangs up, for "explain".
func (x *Exit) Try(ctx context.Context, g grant.Grant) (wire.Reason, error) {
	err := x.list.Load().Target(g.Target)
	if err == nil && limited(g.Terms) {
		var l *limits
		if l, err = x.limitsOf(g); err == nil {
			err = l.begin(ctx, wire.OpenProbe, g.ID())
		}
	}
	if err == nil {
		var conn net.Conn
		if conn, err = x.dial(ctx, g); err == nil {
			return wire.ReasonNone, conn.Close()
		}
	}
	reason, _ := reasonOf(err)
	return reason, err
}

func peerOf(cert *x509.Certificate) (identity.Peer, error) {
	id, err := identity.FromCertificate(cert)
	if err != nil {
		return identity.Peer{}, err
	}
	return identity.Peer{ID: id, Key: identity.HashKey(cert), NotAfter: cert.NotAfter}, nil
}

// introduce tells the target who its client is, where the grant wants that.
func introduce(conn net.Conn, g grant.Grant, source netip.AddrPort) error {
	source = netip.AddrPortFrom(source.Addr().Unmap().WithZone(""), source.Port())
	var header []byte
	switch g.Proxy {
	case 0:
		return nil
	case 1:
		header = proxyheader.AppendV1(nil, source, listenAddr(g.Listen, source))
	case 2:
		header = proxyheader.AppendV2(nil, source, listenAddr(g.Listen, source))
	}
	conn.SetWriteDeadline(time.Now().Add(dialTimeout))
	defer conn.SetWriteDeadline(time.Time{})
	_, err := conn.Write(header)
	return err
}

// listenAddr returns the address that the client connected to, as far as the
// grant tells: a listener on all addresses gives the unspecified one of the
// client's family.
func listenAddr(listen endpoint.Endpoint, source netip.AddrPort) netip.AddrPort {
	ap, ok := listen.AddrPort()
	if !ok || !source.IsValid() || ap.Addr().Is4() == source.Addr().Is4() {
		return ap
	}
	if source.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port())
}

// refuse logs why something was not opened, whole, and returns what the peer is
// told of it.
func (x *Exit) refuse(peer identity.Peer, open wire.Open, g grant.Grant, err error) error {
	reason, told := reasonOf(err)
	attrs := []any{"peer", peer.ID.Name, "grant", open.Grant.String(), "reason", reason.String(), "error", err}
	if g.Forward != "" {
		attrs = append(attrs, "forward", g.Forward, "target", g.Target.String())
	}
	if reason == wire.ReasonNone { // the peer gave up, nobody was refused
		x.log.Debug("dial given up", attrs...)
		return context.Canceled
	}
	if forbids(err) {
		x.forbidden.Add(reason.String())
	} else {
		x.failed.Add(reason.String())
	}
	x.log.Warn("refused to a peer", attrs...)
	return tunnel.Refuse(reason, "%s", told)
}

// forbids reports whether an error is a refusal, and not one of the dial.
func forbids(err error) bool {
	_, refused := errors.AsType[*grants.Refused](err)
	_, denied := errors.AsType[*allow.Denied](err)
	return refused || denied
}

// reasonOf returns the reason of an error, and the words a peer may read. What
// this portal's lists and its name server say stays here.
func reasonOf(err error) (wire.Reason, string) {
	var refused *grants.Refused
	var denied *allow.Denied
	var failed *dialError
	switch {
	case errors.As(err, &refused):
		return refused.Reason, ""
	case errors.As(err, &denied):
		return denied.Reason, ""
	case errors.As(err, &failed):
		return failed.reason, failed.told
	case errors.Is(err, context.Canceled):
		return wire.ReasonNone, ""
	}
	return dialReason(err)
}
