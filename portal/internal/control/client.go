// Package control is the portal's side of its connection to the server: it
// keeps the connection, passes grants on, asks for sessions and knows which
// other portals are connected. Losing the server changes nothing else: tunnels
// and grants stay as they are, and tickets take the place of sessions.
//
// A Client owns the connection and everything that the server has said but the
// grants, which their Keeper has. The files beside it hold a part of that each:
// tickets, networks and what connections through them bear, round trips to
// relays.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/address"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/proxy"
	"github.com/netport/netport/proto/wire"
)

const (
	// requestTimeout bounds a request for a session.
	requestTimeout = 5 * time.Second
	// maxRequests bounds those under way.
	maxRequests = 1024
	// maxPeers bounds the peers of which a state is kept.
	maxPeers = 16384
)

// Conn is the connection to a server.
type Conn = wirecontrol.Conn[wire.ToPortal, wire.FromPortal]

// Sessions takes what the server says about sessions. Its methods are called
// one after the other and must not block.
type Sessions interface {
	// Accept takes a session, whichever portal has asked for it, before
	// OpenSession returns it.
	Accept(wire.Session)
	// Ended takes the end of a session of either side.
	Ended(id wire.SessionID, reason wire.Reason)
	// Connected takes that the connection to the server was made or lost.
	Connected(connected bool)
	// PeerChanged takes that another portal has lost its connection to the
	// server, or made it again.
	PeerChanged(name string)
}

// Identity is what the server tells about certificates, and asks of it: a
// keeper.Keeper.
type Identity interface {
	// Connected takes a connection, Lost that it is gone.
	Connected(send func(keeper.FromBoth))
	Lost()
	// Handle takes a message if it is for it.
	Handle(m wire.Message) (taken bool, err error)
	// Told takes the time of a proven server, Refused that one has refused the
	// certificate.
	Told(at time.Time)
	Refused()
}

// Config is what a Client is made from.
type Config struct {
	Credentials *identity.Credentials
	Identity    Identity        // keeps the credentials
	Software    string          // name and version of this program
	Servers     []string        // "host" or "host:port"
	Proxy       *proxy.Settings // through which they are reached; nil: through none
	Network     string          // name of the network of the start; see NetworkChanged
	Grants      *grants.Keeper
	// Measure measures the round trip to a relay; server is where the server was
	// reached.
	Measure func(ctx context.Context, relay wire.RelayPlace, server netip.Addr) (time.Duration, error)
	Kept    state.Kept // from an earlier life
	Changed func()     // is called when what Keep adds has changed; it must not block
	Log     *slog.Logger
}

// Client keeps the connection. Its methods are safe for concurrent use.
type Client struct {
	Config
	dialer   wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]
	hurry    chan struct{} // capacity 1: dial now
	sessions Sessions      // set before Run

	mu       sync.Mutex // guards the following
	conn     *Conn      // nil: not connected
	since    time.Time  // of this state
	connects uint64     // so far
	server   string     // name of the server connected last
	address  netip.AddrPort
	seen     netip.Addr // where the server saw this portal last
	told     []string   // servers that a server has told of
	toldAt   netip.Addr // where that was reached; invalid: in an earlier life
	version  uint64     // policy version that is complete
	peers    map[string]bool
	relay    bool // as the server says: there is one for a new session
	requests map[uint32]*request
	next     uint32
	doubted  time.Time // when the way to the server was another, as something showed
	hastened time.Time // when the server was dialled at once for that
	anew     time.Time // when what was being dialled was given up for that
	tickets  tickets
	networks networks
	// What the server said last of another machine with this identity, and when.
	contest   string
	contested time.Time
	times     times
	failed    string // why no server was reached at the last attempt; empty: there was none since the last connection
}

type request struct {
	peer   string
	answer chan answer // capacity 1
}

type answer struct {
	session wire.Session
	err     error
}

// New returns a Client.
func New(cfg Config) *Client {
	c := &Client{
		Config: cfg, hurry: make(chan struct{}, 1), since: time.Now(), told: cfg.Kept.Servers,
		peers: make(map[string]bool), requests: make(map[uint32]*request),
		tickets: newTickets(cfg.Credentials.Now(), cfg.Kept.Tickets), networks: newNetworks(cfg.Kept.Networks, cfg.Changed), times: newTimes(),
	}
	if cfg.Kept.Grants.Known {
		c.version = cfg.Kept.Grants.Completed.Version
	}
	c.networks.enter(cfg.Network)
	c.dialer = wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]{
		Credentials: cfg.Credentials, Software: cfg.Software, Parse: wire.ParseToPortal, Log: cfg.Log, Proxy: cfg.Proxy,
		Pauses: c.pauses, Last: c.lastWay, Reached: c.reached, Book: wirecontrol.NewBook(cfg.Kept.Hosts, cfg.Changed), More: c.more, Permit: c.permit, Hurry: c.hurry,
		Failed: c.notReached, Told: func(at time.Time) { c.Identity.Told(at) }, Refused: func() { c.Identity.Refused() },
	}
	return c
}

// Run keeps the connection until ctx is cancelled. sessions is told of every
// session.
func (c *Client) Run(ctx context.Context, sessions Sessions) error {
	c.sessions = sessions
	var measuring sync.WaitGroup
	measuring.Go(func() { c.measure(ctx) })
	err := c.dialer.Keep(ctx, wirecontrol.Addresses(c.Config.Servers), c.use)
	measuring.Wait()
	return err
}

// Keep adds to k what the Client knows and would need again.
func (c *Client) Keep(k *state.Kept) {
	k.Hosts = c.dialer.Book.Hosts()
	c.mu.Lock()
	defer c.mu.Unlock()
	k.Servers = c.told
	k.Tickets = c.tickets.all(c.Credentials.Now())
	k.Networks = c.networks.kept()
}

// Servers returns the servers of the configuration, and those that a server has
// told of.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Concat(c.Config.Servers, c.told)
}

// notReached notes why a server was not reached.
func (c *Client) notReached(_ string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err.Error()
}

// more returns the servers that a server has told of.
func (c *Client) more() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wirecontrol.Addresses(c.told)
}

// use serves one connection.
func (c *Client) use(ctx context.Context, conn *Conn, welcome wire.Welcome) error {
	// Grants first: nothing that comes after them is judged by old keys.
	c.Grants.Connected(welcome.Stamp)
	c.mu.Lock()
	c.conn, c.since, c.server = conn, time.Now(), conn.Peer().ID.Name
	c.connects++
	c.failed = ""
	c.address, c.seen = addrOf(conn.RemoteAddr()), welcome.Seen
	if conn.Proxy() != "" {
		c.seen = netip.Addr{} // it is the proxy's, where no peer reaches this portal
	}
	clear(c.peers)
	c.relay = false
	c.times.connected()
	c.mu.Unlock()
	c.sessions.Connected(true)
	c.Changed()
	if skew := time.Since(time.Unix(int64(welcome.Time), 0)).Abs(); skew > maxSkew {
		c.Log.Warn("the clock here and the server's differ", "by", skew.Round(time.Second))
	}
	c.Identity.Connected(func(m keeper.FromBoth) { conn.Send(m) })
	defer c.Identity.Lost()
	err := conn.Run(ctx, c.handle)
	c.lost(err)
	return err
}

// maxSkew is the difference of clocks that is worth a word: grants begin an
// hour before they are stamped.
const maxSkew = 5 * time.Minute

// hurryEvery is how often at most a connection is made anew without the pause that
// spreads portals.
const hurryEvery = 10 * time.Second

// lost ends what waits for an answer of a connection that is gone. One that broke
// under a request, for which a tunnel waits, or when it was doubted, did so because
// the way to the server is another now: there is a new one at once.
func (c *Client) lost(why error) {
	defer c.sessions.Connected(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.conn, c.since = nil, now
	c.times.lost()
	goodbye, bye := errors.AsType[*wirecontrol.Goodbye](why)
	if bye && goodbye.Reason == wire.ReasonReplaced { // which only a connection that is alive hears
		c.contest, c.contested = goodbye.Text, now
	}
	moved := len(c.requests) > 0 || now.Sub(c.doubted) < 2*wirecontrol.ProbeTimeout
	if !bye && moved && now.Sub(c.hastened) > hurryEvery {
		c.hastened = now
		c.dial()
	}
	for id := range c.requests {
		c.answerLocked(id, answer{err: &Refused{Reason: wire.ReasonServerGone, Text: "the connection to the server was lost"}})
	}
}

// dial has the server dialled at once.
func (c *Client) dial() {
	select {
	case c.hurry <- struct{}{}:
	default:
	}
}

// handle takes one message of the server.
func (c *Client) handle(m wire.ToPortal) error {
	if taken, err := c.Identity.Handle(m); taken || err != nil {
		return err
	}
	switch m := m.(type) {
	case wire.Session:
		c.session(m)
		return nil
	case wire.PeerState:
		if c.peerState(m) {
			c.sessions.PeerChanged(m.Name)
		}
		return nil
	case wire.SessionEnded:
		c.sessions.Ended(m.Session, m.Reason)
		return nil
	case wire.PutGrant:
		if err := c.Grants.Put(m.Grant); err != nil {
			c.Log.Warn("grant of the server not taken", "error", err)
		}
		c.Changed()
		return nil
	case wire.RemoveGrant:
		c.Grants.Remove(m.Grant, m.Reason)
		c.Changed()
		return nil
	case wire.GrantsComplete:
		version, err := c.Grants.Complete(m)
		if err != nil {
			c.Log.Warn("policy version of the server not taken", "error", err)
		}
		joined := c.Grants.Peers()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.version = version
		c.tickets.only(joined)
		c.Changed()
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m := m.(type) {
	case wire.RelayState:
		c.relay = m.Ready
	case wire.Refused:
		c.answerLocked(m.Request, answer{err: &Refused{Reason: m.Reason, Text: m.Text}})
	case wire.Servers:
		c.serversLocked(m.Addresses)
	case wire.Ticket:
		if !c.tickets.put(c.Credentials.Now(), m) {
			c.Log.Debug("ticket of the server not taken", "peer", m.Peer, "relay", m.Relay.Name)
		}
		c.Changed()
	case wire.Relays:
		if send := c.times.relays(time.Now(), m.Relays); send != nil {
			c.conn.Send(wire.RelayTimes{Times: send})
		}
	default:
		return fmt.Errorf("%w: a message of type %d at this point", wire.ErrMalformed, m.Type())
	}
	return nil
}

// serversLocked takes the list of servers; what is none is left out.
func (c *Client) serversLocked(list []string) {
	var good []string
	for _, s := range list {
		if err := wirecontrol.CheckServer(s); err != nil {
			c.Log.Warn("server of the server's list not taken", "address", s, "error", err)
			continue
		}
		good = append(good, s)
	}
	c.toldAt = c.address.Addr()
	if !slices.Equal(good, c.told) {
		c.told = good
		c.Changed()
	}
}

// permit judges where a server leads that a server has told of: whoever has stolen that
// one reaches nothing by this portal that a portal has no business with. Only a server
// on this machine may name another on it.
func (c *Client) permit(a netip.Addr) error {
	c.mu.Lock()
	here := c.toldAt.IsLoopback()
	c.mu.Unlock()
	a = a.Unmap()
	if kind := address.KindOf(a); kind != address.Ordinary && !(here && a.IsLoopback()) {
		return fmt.Errorf("a server has named it, and it leads to %s, a %s address: only this portal's own configuration can name that", a, kind)
	}
	return nil
}

// peerState takes whether another portal is connected, and reports whether that
// has changed while this one was.
func (c *Client) peerState(m wire.PeerState) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.peers[m.Name]
	if known || len(c.peers) < maxPeers {
		c.peers[m.Name] = m.Online
	}
	return known && was != m.Online
}

// session takes a session that begins: its end may be the very next message,
// so it is known to all before whoever asked for it wakes.
func (c *Client) session(m wire.Session) {
	c.sessions.Accept(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answerLocked(m.Request, answer{session: m})
}

// answerLocked answers a request, if somebody still waits for it.
func (c *Client) answerLocked(id uint32, a answer) {
	r := c.requests[id]
	if r == nil {
		return
	}
	delete(c.requests, id)
	if a.err == nil && a.session.Peer != r.peer {
		a.err = &Refused{Reason: wire.ReasonWrongPeer, Text: fmt.Sprintf("the server's session is with %q", a.session.Peer)}
	}
	r.answer <- a
}

// Refused is a session that there is not, and why.
type Refused struct {
	Reason wire.Reason
	Text   string
}

func (r *Refused) Error() string {
	if r.Text == "" {
		return "session refused: " + r.Reason.String()
	}
	return fmt.Sprintf("session refused: %s: %s", r.Reason, r.Text)
}

// OpenSession asks the server for a session with another portal, with which
// the grant joins this one. lost names the relay at which the two have just lost
// each other, or is empty. The error is a *Refused, or that of ctx.
func (c *Client) OpenSession(ctx context.Context, peer string, id wire.GrantID, transports wire.Transports, lost string) (wire.Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, &Refused{Reason: wire.ReasonServerGone, Text: fmt.Sprintf("the server did not answer within %v", requestTimeout)})
	defer cancel()
	c.mu.Lock()
	if c.conn == nil || len(c.requests) >= maxRequests {
		conn := c.conn
		c.mu.Unlock()
		if conn == nil {
			return wire.Session{}, &Refused{Reason: wire.ReasonServerGone, Text: "no connection to a server"}
		}
		return wire.Session{}, &Refused{Reason: wire.ReasonBusy, Text: fmt.Sprintf("%d requests for sessions are under way", maxRequests)}
	}
	c.next++
	if c.next == 0 {
		c.next = 1
	}
	number, r := c.next, &request{peer: peer, answer: make(chan answer, 1)}
	c.requests[number] = r
	c.conn.Send(wire.OpenSession{Request: number, Peer: peer, Grant: id, Transports: transports, Lost: lost})
	// There is something to say: a server that is gone unnoticed is to be
	// found out now.
	c.conn.Probe()
	c.mu.Unlock()
	select {
	case a := <-r.answer:
		return a.session, a.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.requests, number)
		c.mu.Unlock()
		return wire.Session{}, context.Cause(ctx)
	}
}

// Done tells the server that this portal has closed its tunnel of a session.
// Without a server it is not told: sessions end by themselves too.
func (c *Client) Done(id wire.SessionID, reason wire.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Send(wire.SessionDone{Session: id, Reason: reason})
		c.conn.Probe()
	}
}

// Renewed takes that the certificate has changed: the server is to see the new one.
// The connection is made anew.
func (c *Client) Renewed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close(wire.ReasonReplaced, "certificate renewed")
	}
}

// Seen returns where the server saw this portal last; not valid: it has not said.
func (c *Client) Seen() netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Server returns the address at which the server was reached last. Before the
// first time that is one of an earlier life, or of the configuration if that
// has one, with port 0; else none.
func (c *Client) Server() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.address.IsValid() {
		return c.address
	}
	for _, h := range c.Kept.Hosts {
		return netip.AddrPortFrom(h.Addrs[0].Unmap(), 0)
	}
	for _, s := range wirecontrol.Addresses(c.Config.Servers) {
		if at, err := netip.ParseAddrPort(s); err == nil {
			return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), 0)
		}
	}
	return netip.AddrPort{}
}

// Connected reports whether there is a connection to a server, and since when
// it is so: without one since the start, if there never was one. A connection
// that has broken unnoticed counts, but not for longer than 5 seconds once there is
// something to say.
func (c *Client) Connected() (connected bool, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil, c.since
}

// Online reports whether the server says that a portal is connected, and
// whether it has said anything about it on the connection of now.
func (c *Client) Online(peer string) (online, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	online, known = c.peers[peer]
	return online, known && c.conn != nil
}

// Relay reports whether the server says that it has a relay for a new session.
func (c *Client) Relay() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.relay && c.conn != nil
}

// Relays returns the relays that the server of now has named.
func (c *Client) Relays() []wire.RelayPlace {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times.places)
}

// Status is what a Client knows.
type Status struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of this state
	Name      string    `json:"name,omitempty"`
	Address   string    `json:"address,omitempty"`
	Transport string    `json:"transport,omitempty"` // by which it is reached: "tcp", or "udp" where TCP is shut
	Proxy     string    `json:"proxy,omitempty"`     // that the connection goes through, if there is one
	Policy    uint64    `json:"policy_version"`      // of which every grant is here; 0: none yet
	Servers   []string  `json:"servers"`             // in the order in which they are tried first
	Connects  uint64    `json:"connects"`            // how often it has connected
	Failed    string    `json:"failed,omitempty"`    // why no server was reached at the last attempt, since the last connection
	// Contest is what the server said, at the time Contested, of another machine that
	// has this portal's identity; empty if that was over an hour ago.
	Contest   string    `json:"contest,omitempty"`
	Contested time.Time `json:"contested,omitzero"`
}

// Place is where the server is reached, for people.
func (s Status) Place() string {
	if s.Transport == "udp" {
		return s.Address + " over UDP"
	}
	return s.Address
}

// contestTime is for how long another machine with this identity is spoken of.
const contestTime = time.Hour

// Status returns what the Client knows.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Connected: c.conn != nil, Since: c.since.UTC().Truncate(time.Second), Name: c.server, Policy: c.version, Connects: c.connects, Failed: c.failed, Servers: wirecontrol.Addresses(c.Config.Servers)}
	for _, a := range wirecontrol.Addresses(c.told) {
		if !slices.Contains(s.Servers, a) {
			s.Servers = append(s.Servers, a)
		}
	}
	if c.address.IsValid() {
		s.Address = c.address.String()
	}
	if c.conn != nil {
		s.Transport = c.conn.RemoteAddr().Network()
	}
	if c.conn != nil && c.conn.Proxy() != "" {
		s.Address, s.Proxy = c.conn.RemoteAddr().String(), c.conn.Proxy()
	}
	if c.contest != "" && time.Since(c.contested) < contestTime {
		s.Contest, s.Contested = c.contest, c.contested.UTC().Truncate(time.Second)
	}
	return s
}

func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // TCP's or UDP's
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
