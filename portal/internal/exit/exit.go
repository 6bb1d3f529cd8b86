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
	"log/slog"
	"net"
	"net/netip"
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
	"github.com/netport/netport/proto/wire"
)

const (
	// dialTimeout bounds one dial from the look-up of the name to the
	// connection.
	dialTimeout = 10 * time.Second
	// maxDialing bounds the dials under way, of all peers together.
	maxDialing = 1024
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

// Exit is the tunnel.Handler of a portal. Its methods are safe for concurrent
// use.
type Exit struct {
	grants   Admitter
	list     allow.List
	resolver Resolver
	dialer   dialer
	log      *slog.Logger
	dialing  chan struct{} // holds one for each dial under way
	vanished *vanish.Watch // of targets elsewhere

	unreachable atomic.Uint64
	oversized   atomic.Uint64
}

var _ tunnel.Handler = (*Exit)(nil)

// New returns an Exit that asks admitter about grants, stays within list and
// resolves names with resolver. Peers decide how much it logs.
func New(admitter Admitter, list allow.List, resolver Resolver, log *slog.Logger) *Exit {
	return &Exit{
		grants: admitter, list: list, resolver: resolver, log: log,
		dialer:  &net.Dialer{KeepAlive: -1, ControlContext: begun},
		dialing: make(chan struct{}, maxDialing), vanished: vanish.New(),
	}
}

// Counters are what an Exit has counted since it began.
type Counters struct {
	Unreachable uint64 // datagrams whose target had no one listening (ICMP port unreachable)
	Oversized   uint64 // datagrams larger than the way to their target takes
}

// Counters returns what was counted.
func (x *Exit) Counters() Counters {
	return Counters{Unreachable: x.unreachable.Load(), Oversized: x.oversized.Load()}
}

// Open implements tunnel.Handler.
func (x *Exit) Open(ctx context.Context, peer *x509.Certificate, open wire.Open) (net.Conn, error) {
	from, err := peerOf(peer)
	if err != nil {
		return nil, x.refuse(from, open, grant.Grant{}, &grants.Refused{Reason: wire.ReasonWrongPeer, Detail: err.Error()})
	}
	g, err := x.grants.Admit(from, open.Grant, open.Signed)
	if err == nil {
		err = x.checkKind(open.Kind, g)
	}
	if err == nil {
		err = x.list.Target(g.Target)
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
	return conn, nil
}

// Try dials the target of a grant of this portal and hangs up, for "explain".
func (x *Exit) Try(ctx context.Context, g grant.Grant) (wire.Reason, error) {
	err := x.list.Target(g.Target)
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

// checkKind keeps a grant of a stream from being used for datagrams, and the
// other way round.
func (x *Exit) checkKind(kind wire.OpenKind, g grant.Grant) error {
	if kind == wire.OpenProbe || (kind == wire.OpenFlow) == g.Target.Datagram() {
		return nil
	}
	return &grants.Refused{Reason: wire.ReasonNotGranted, Detail: "the peer asks for datagrams of a stream's grant, or for a stream of a datagram's"}
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
	x.log.Warn("refused to a peer", attrs...)
	return tunnel.Refuse(reason, "%s", told)
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
