// Package control is the portal's side of its connection to the server: it
// keeps the connection, passes grants on, asks for sessions and knows which
// other portals are connected. Losing the server changes nothing else: tunnels
// and grants stay as they are.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/grants"
	wirecontrol "github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
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
}

// Client keeps the connection. Its methods are safe for concurrent use.
type Client struct {
	dialer   wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]
	servers  []string
	grants   *grants.Keeper
	sessions Sessions // set before Run
	log      *slog.Logger

	mu       sync.Mutex // guards the following
	conn     *Conn      // nil: not connected
	since    time.Time  // of this state
	server   string     // name of the server connected last
	address  netip.AddrPort
	version  uint64 // policy version that is complete
	peers    map[string]bool
	relay    bool // as the server says: there is one for a new session
	requests map[uint32]*request
	next     uint32
}

type request struct {
	peer   string
	answer chan answer // capacity 1
}

type answer struct {
	session wire.Session
	err     error
}

// NewClient returns a Client of the servers ("host" or "host:port").
func NewClient(credentials *identity.Credentials, software string, servers []string, keeper *grants.Keeper, log *slog.Logger) *Client {
	return &Client{
		dialer: wirecontrol.Dialer[wire.ToPortal, wire.FromPortal]{
			Credentials: credentials, Software: software, Parse: wire.ParseToPortal, Log: log,
		},
		servers: wirecontrol.Addresses(servers), grants: keeper, log: log,
		since: time.Now(), peers: make(map[string]bool), requests: make(map[uint32]*request),
	}
}

// Run keeps the connection until ctx is cancelled. sessions is told of every
// session.
func (c *Client) Run(ctx context.Context, sessions Sessions) error {
	c.sessions = sessions
	return c.dialer.Keep(ctx, c.servers, c.use)
}

// use serves one connection.
func (c *Client) use(ctx context.Context, conn *Conn, welcome wire.Welcome) error {
	// Grants first: nothing that comes after them is judged by old keys.
	c.grants.Connected(welcome.Stamp)
	c.mu.Lock()
	c.conn, c.since, c.server = conn, time.Now(), conn.Peer().ID.Name
	c.address = addrOf(conn.RemoteAddr())
	clear(c.peers)
	c.relay = false
	c.mu.Unlock()
	if skew := time.Since(time.Unix(int64(welcome.Time), 0)).Abs(); skew > maxSkew {
		c.log.Warn("the clock here and the server's differ", "by", skew.Round(time.Second))
	}
	defer c.lost()
	return conn.Run(ctx, c.handle)
}

// maxSkew is the difference of clocks that is worth a word: grants begin an
// hour before they are stamped.
const maxSkew = 5 * time.Minute

// lost ends what waits for an answer of a connection that is gone.
func (c *Client) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.since = nil, time.Now()
	for id := range c.requests {
		c.answerLocked(id, answer{err: &Refused{Reason: wire.ReasonServerGone, Text: "the connection to the server was lost"}})
	}
}

// handle takes one message of the server.
func (c *Client) handle(m wire.ToPortal) error {
	switch m := m.(type) {
	case wire.PutGrant:
		if err := c.grants.Put(m.Grant); err != nil {
			c.log.Warn("grant of the server not taken", "error", err)
		}
	case wire.RemoveGrant:
		c.grants.Remove(m.Grant, m.Reason)
	case wire.GrantsComplete:
		c.grants.Complete(m.Version)
		c.mu.Lock()
		c.version = m.Version
		c.mu.Unlock()
	case wire.PeerState:
		c.mu.Lock()
		if _, known := c.peers[m.Name]; known || len(c.peers) < maxPeers {
			c.peers[m.Name] = m.Online
		}
		c.mu.Unlock()
	case wire.RelayState:
		c.mu.Lock()
		c.relay = m.Ready
		c.mu.Unlock()
	case wire.Session:
		c.session(m)
	case wire.Refused:
		c.mu.Lock()
		c.answerLocked(m.Request, answer{err: &Refused{Reason: m.Reason, Text: m.Text}})
		c.mu.Unlock()
	case wire.SessionEnded:
		c.sessions.Ended(m.Session, m.Reason)
	default:
		return fmt.Errorf("%w: a message of type %d at this point", wire.ErrMalformed, m.Type())
	}
	return nil
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
// the grant joins this one. The error is a *Refused, or that of ctx.
func (c *Client) OpenSession(ctx context.Context, peer string, id wire.GrantID, transports wire.Transports) (wire.Session, error) {
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
	c.conn.Send(wire.OpenSession{Request: number, Peer: peer, Grant: id, Transports: transports})
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
	}
}

// Server returns the address at which the server was reached last: the zero
// AddrPort before the first time.
func (c *Client) Server() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.address
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

// Status is what a Client knows.
type Status struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of this state
	Name      string    `json:"name,omitempty"`
	Address   string    `json:"address,omitempty"`
	Policy    uint64    `json:"policy_version"` // of which every grant is here; 0: none yet
	Servers   []string  `json:"servers"`
}

// Status returns what the Client knows.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Connected: c.conn != nil, Since: c.since.UTC().Truncate(time.Second), Name: c.server, Policy: c.version, Servers: c.servers}
	if c.address.IsValid() {
		s.Address = c.address.String()
	}
	return s
}

func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
