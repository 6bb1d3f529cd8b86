package udp

import (
	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
)

// bind handles a packet with the STUN cookie: a bind request, or nothing to
// answer.
func (r *Relay) bind(s *socket, from bpf.Leg, packet []byte) {
	if !r.cfg.Sources.Allows(from.Remote) {
		r.cfg.Drops.Add(drop.ForbiddenSource)
		return
	}
	q, err := leg.ParseRequest(packet)
	if err != nil {
		r.cfg.Drops.Add(drop.Malformed)
		return
	}
	at := s
	if s.parent != nil {
		// Its peer binds anew; or a stranger, whom a connected socket may hear
		// between its bind and its connect, but cannot answer.
		at = s.parent
	}
	answer, why := r.judge(q, from, at, s.parent == nil)
	r.cfg.Drops.Add(why)
	if answer != nil {
		if err := at.write(answer, from.Local, from.Remote, 0); err != nil {
			r.drop(err, from.Remote, 1)
		}
	}
}

// judge lets a bind request of a leg at a listening socket take effect, and
// returns what to answer, if anything. direct: the socket has received it itself.
func (r *Relay) judge(q leg.Request, from bpf.Leg, at *socket, direct bool) (answer []byte, why drop.Reason) {
	s := r.session(q.ID.Session)
	if s == nil {
		// Of a connected socket, its session is about to end, and waits for the reader.
		if at.owner != nil || !direct {
			return nil, drop.UnknownSession
		}
		k, o := r.cfg.Leases.TicketBind(r.cfg.Now(), q, from.Remote)
		if k == nil {
			return o.Answer, o.Drop
		}
		if why := r.cfg.Take(*k, from.Remote.Addr()); why != drop.None {
			return nil, why
		}
		if s = r.session(q.ID.Session); s == nil {
			return nil, drop.UnknownSession // it has ended again
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, drop.UnknownSession
	}
	o := r.cfg.Leases.Bind(r.cfg.Now(), q, from, at.owner == nil)
	if o.Moved {
		if err := r.moveLocked(s, q.ID, from, at); err != nil {
			r.cfg.Log.Error("leg not bound", "session", s.ID, "leg", q.ID.Leg, "remote", from.Remote, "error", err)
			return nil, drop.SendFailed
		}
		r.cfg.Log.Debug("leg bound", "session", s.ID, "leg", q.ID.Leg, "connection", q.ID.Connection, "remote", from.Remote, "port", from.Port, "local", from.Local)
	}
	return o.Answer, o.Drop
}

// moveLocked binds a leg that is heard at a listening socket to where it is now:
// for the first time, or in the place of where it was.
func (r *Relay) moveLocked(s *session, id leg.ID, to bpf.Leg, at *socket) error {
	c, ok := s.connections[id.Connection]
	if !ok {
		c = &connection{}
		s.connections[id.Connection] = c
	}
	old := *c
	was, wasAt := c.legs[id.Leg], c.ports[id.Leg]
	if was == to {
		return nil
	}
	if at.owner == nil {
		n, err := at.connect(to, s)
		if err != nil {
			return err
		}
		if err := r.start(n); err != nil {
			return err
		}
		at = n
	}
	r.plane.attach(to, at)
	c.legs[id.Leg], c.ports[id.Leg] = to, at
	delete(s.legs, was)
	s.legs[to] = id
	pair, joined := c.pair()
	if joined {
		if err := r.addLocked(s, c, pair); err != nil {
			return err
		}
	}
	if before, ok := old.pair(); ok {
		r.removeLocked(s, before)
		if was.Remote == to.Remote && was.Port == to.Port {
			// A kernel plane tells legs apart by these alone, and has removed both.
			r.shortcut.add(pair, r.terms(s))
		}
	}
	if wasAt != nil {
		r.plane.detach(was)
		if wasAt.parent != nil {
			wasAt.stop()
		}
	}
	return nil
}

// releaseLocked sends what was held, once both legs are bound.
func (r *Relay) releaseLocked(c *connection) {
	if _, ok := c.pair(); !ok {
		return
	}
	for n := range c.held {
		if way := r.plane.route(c.legs[n]); way != nil {
			for _, h := range c.held[n] {
				if way.meter != nil && way.meter.admit(r.clock(), h.packet, len(h.packet)) == 0 {
					r.cfg.Drops.Add(drop.RateLimit)
					continue
				}
				r.send(way, h.packet, h.ecn)
			}
		}
		c.held[n] = nil
	}
}

// hold keeps a packet of a bound leg that has no way yet, and drops every
// other one.
func (r *Relay) hold(s *socket, from bpf.Leg, packet []byte, ecn byte) {
	owner := s.owner
	if owner == nil {
		// A bound leg has a socket of its own, but what it sent right behind its bind
		// has come before that was there.
		if id, ok := r.cfg.Leases.BoundAtShared(from.Remote); ok {
			owner = r.session(id.Session)
		}
	}
	if owner == nil {
		r.cfg.Drops.Add(drop.UnknownSource)
		return
	}
	owner.mu.Lock()
	defer owner.mu.Unlock()
	id, ok := owner.legs[from]
	if !ok || owner.closed {
		r.cfg.Drops.Add(drop.UnknownSource)
		return
	}
	c := owner.connections[id.Connection]
	if _, joined := c.pair(); !joined && len(c.held[id.Leg]) >= MaxHeld {
		r.cfg.Drops.Add(drop.NotJoined)
		return
	}
	c.held[id.Leg] = append(c.held[id.Leg], held{packet: append([]byte(nil), packet...), ecn: ecn})
	r.releaseLocked(c) // if the other leg was bound since the reader looked
}
