package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/record"
	"github.com/netport/netport/proto/reserve"

	"github.com/netport/netport/relay/internal/drop"
)

// tlsHandshake is the type of the TLS record that a ClientHello comes in (RFC
// 8446 section 5.1).
const tlsHandshake = 0x16

// acceptPause is how long to leave connections in the queue when the system
// gives none: it is out of descriptors or memory.
const acceptPause = 100 * time.Millisecond

// accept has serve take connections until l is closed.
func (r *Relay) accept(l net.Listener, serve func(net.Conn)) {
	failed := false // said already
	for {
		c, err := reserve.Accept(l)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !failed {
				r.cfg.Log.Warn("connection not accepted", "at", l.Addr().String(), "error", err)
			}
			failed = true
			select {
			case <-time.After(acceptPause):
			case <-r.ctx.Done():
			}
			continue
		}
		failed = false
		r.running.Go(func() { serve(c) })
	}
}

// acceptTCP takes the connections of a port: the session's own, or 0 at the shared port.
func (r *Relay) acceptTCP(l *net.TCPListener, port uint16) {
	r.accept(l, func(c net.Conn) { r.serve(c.(*net.TCPConn), nil, port) })
}

// serve brings one connection, of which head was read, to its pair, or closes it without
// a word.
func (r *Relay) serve(raw *net.TCPConn, head []byte, port uint16) {
	remote := raw.RemoteAddr().(*net.TCPAddr).AddrPort()
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	var id leg.ID
	why := drop.ForbiddenSource
	if r.cfg.Sources.Allows(remote) {
		c := &conn{tcp: raw, remote: remote}
		var p leg.Preface
		if p, why = r.prove(c, head, port == 0); why == drop.None {
			id, why = r.admit(c, p, port)
		}
	}
	if why != drop.None {
		raw.Close()
		r.refuse(remote, id, why)
	}
}

// admit lets a leg that has shown its preface be judged, and joins it. The ID is
// zero for a leg of no session, nor of a ticket.
func (r *Relay) admit(c *conn, p leg.Preface, port uint16) (leg.ID, drop.Reason) {
	if port == 0 && !r.holds(p.ID.Session) {
		k, why := r.cfg.Leases.TicketPreface(r.cfg.Now(), p)
		if why != drop.None {
			return leg.ID{}, why
		}
		if why = r.cfg.Take(k, c.remote.Addr()); why != drop.None {
			return p.ID, why
		}
	}
	why := r.cfg.Leases.Prove(r.cfg.Now(), p, c.remote, port)
	if why == drop.None {
		why = r.join(c, p.ID)
	}
	return p.ID, why
}

// refuse counts what was turned away. Who named a session has its id, so that
// is worth a line; strangers are not.
func (r *Relay) refuse(remote netip.AddrPort, id leg.ID, why drop.Reason) {
	r.cfg.Drops.Add(why)
	if id.Session.IsZero() || why == drop.UnknownSession {
		r.cfg.Log.Debug("connection refused", "remote", remote, "reason", why)
		return
	}
	r.cfg.Log.Info("leg refused", "session", id.Session, "leg", id.Leg, "connection", id.Connection, "remote", remote, "reason", why)
}

// prove reads the preface, of which head may have been read already, within
// HandshakeTimeout in all. The connection counts as unproven meanwhile, and may be
// closed for newer ones.
func (r *Relay) prove(c *conn, head []byte, shared bool) (leg.Preface, drop.Reason) {
	defer r.gate.Enter(c.tcp)()
	defer context.AfterFunc(r.ctx, func() { c.tcp.Close() })()
	c.tcp.SetDeadline(time.Now().Add(r.handshake))
	if len(head) == 0 {
		head = make([]byte, 1)
		if _, err := io.ReadFull(c.tcp, head); err != nil {
			return leg.Preface{}, cause(err, drop.Malformed)
		}
	}
	var b [leg.PrefaceLen]byte
	if head[0] == tlsHandshake && shared && r.cfg.TLS != nil {
		c.reviews = r.reviews.Load()
		c.raw = &peeked{TCPConn: c.tcp, head: head}
		c.tls = record.Server(c.raw, r.cfg.TLS)
		if err := c.tls.HandshakeContext(r.ctx); err != nil {
			return leg.Preface{}, cause(err, drop.TLS)
		}
		if _, err := io.ReadFull(c.tls, b[:]); err != nil {
			return leg.Preface{}, cause(err, drop.Malformed)
		}
	} else if n := copy(b[:], head); n < len(head) {
		return leg.Preface{}, drop.Malformed // payload was read, which would be lost
	} else if _, err := io.ReadFull(c.tcp, b[n:]); err != nil {
		return leg.Preface{}, cause(err, drop.Malformed)
	}
	p, err := leg.ParsePreface(b[:])
	if err != nil {
		return leg.Preface{}, drop.Malformed
	}
	c.tcp.SetDeadline(time.Time{})
	return p, drop.None
}

// cause says why reading a preface ended early.
func cause(err error, otherwise drop.Reason) drop.Reason {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return drop.HandshakeTimeout
	case errors.Is(err, net.ErrClosed):
		return drop.Evicted
	}
	return otherwise
}

// peeked is a connection whose first bytes have been read already. It notes
// its own end.
type peeked struct {
	*net.TCPConn
	head  []byte
	ended bool // owned by the reader
}

func (c *peeked) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil // it may be kilobytes
		}
		return n, nil
	}
	n, err := c.TCPConn.Read(b)
	if err == io.EOF {
		c.ended = true
	}
	return n, err
}

// join pairs a proven leg with the other one, or lets it wait for it.
func (r *Relay) join(c *conn, id leg.ID) drop.Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.sessions[id.Session]
	if !ok {
		return drop.UnknownSession // it has ended since the leg was proven
	}
	if c.reviews != r.reviews.Load() && r.revoked(c) {
		return drop.TLS // while it was proving itself
	}
	if id.Connection == leg.Meeting {
		s.clearMeetingsLocked(id.Leg, r.cfg.Now())
		for p := range s.pairs {
			p.doubt(id.Leg, r.cfg.Now())
		}
	}
	if other, ok := s.waiting[id.Other()]; ok {
		switch {
		case other.conn.remote == c.remote:
			return drop.SourceTaken
		case len(s.pairs) >= MaxPairs:
			return drop.Limit
		}
		r.takeLocked(other)
		if !r.cfg.Leases.Join(id) {
			other.conn.reset()
			return drop.Joined
		}
		r.startLocked(s, id, c, other.conn)
		return drop.None
	}
	if old, ok := s.waiting[id]; ok {
		r.takeLocked(old)
		old.conn.reset() // the portal has dialled anew
	}
	r.queueLocked(&half{id: id, session: s, conn: c, since: r.cfg.Now()})
	return drop.None
}

func (r *Relay) startLocked(s *session, id leg.ID, c, other *conn) {
	now := r.cfg.Now()
	p := &pair{connection: id.Connection, joined: now, pipes: &r.pipes, total: &s.traffic, since: now}
	p.legs[id.Leg], p.legs[1-id.Leg] = c, other
	s.pairs[p] = struct{}{}
	r.pairs.Add(1)
	r.cfg.Log.Debug("connection joined", "session", id.Session, "connection", id.Connection, "leg 0", p.legs[0].remote, "leg 1", p.legs[1].remote)
	s.running.Go(func() {
		p.run()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(s.pairs, p)
		r.pairs.Add(-1)
	})
}

// clearMeetingsLocked resets the Meeting pairs of a session that a newer leg shows to
// be dead: those in which that leg has sent nothing yet. And where the session
// has all the pairs it may have, the one that has been idle for the longest: it
// takes many losses to get there.
func (s *session) clearMeetingsLocked(n uint8, now time.Time) {
	var idle *pair
	for p := range s.pairs {
		if p.connection != leg.Meeting {
			continue
		}
		if p.moved[n].Load() == 0 && now.Sub(p.joined) > meetingGrace {
			p.abort()
		}
		if idle == nil || p.since.Before(idle.since) {
			idle = p
		}
	}
	if len(s.pairs) >= MaxPairs && idle != nil {
		idle.abort()
		delete(s.pairs, idle)
	}
}
