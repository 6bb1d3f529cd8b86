package udp

import (
	"context"
	"net/netip"

	"github.com/netport/netport/bpf"
	"github.com/netport/netport/proto/leg"

	"github.com/netport/netport/relay/internal/drop"
)

// bind handles a packet with the STUN cookie: a bind request, or nothing to
// answer.
func (r *Relay) bind(s *socket, from netip.AddrPort, packet []byte) {
	if !r.cfg.Sources.Allows(from) {
		r.cfg.Drops.Add(drop.ForbiddenSource)
		return
	}
	q, err := leg.ParseRequest(packet)
	if err != nil {
		r.cfg.Drops.Add(drop.Malformed)
		return
	}
	n := r.session(q.ID.Session)
	if n == nil {
		r.cfg.Drops.Add(drop.UnknownSession)
		return
	}
	port, out := s.port, s
	if s.shared() {
		// A connected socket may hear strangers for a moment, between its bind
		// and its connect; it cannot answer them.
		port, out = 0, r.shared
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		r.cfg.Drops.Add(drop.UnknownSession)
		return
	}
	o := r.cfg.Leases.Bind(r.cfg.Now(), q, from, port)
	r.cfg.Drops.Add(o.Drop)
	if o.Moved {
		if err := r.moveLocked(n, q.ID, bpf.Leg{Remote: from, Port: s.port}, port == 0); err != nil {
			r.cfg.Log.Error("leg not bound", "session", n.ID, "leg", q.ID.Leg, "remote", from, "error", err)
			r.cfg.Drops.Add(drop.SendFailed)
			return
		}
		r.cfg.Log.Debug("leg bound", "session", n.ID, "leg", q.ID.Leg, "connection", q.ID.Connection, "remote", from, "port", s.port)
	}
	if o.Answer != nil && out.write(o.Answer, from, 0) != nil {
		r.cfg.Drops.Add(drop.SendFailed)
	}
}

// shared reports whether a socket serves the shared port.
func (s *socket) shared() bool { return s.owner == nil || s.remote.IsValid() }

// moveLocked binds a leg to where it is now: for the first time, or in the
// place of where it was.
func (r *Relay) moveLocked(s *session, id leg.ID, to bpf.Leg, shared bool) error {
	c, ok := s.connections[id.Connection]
	if !ok {
		c = &connection{}
		s.connections[id.Connection] = c
	}
	was := c.legs[id.Leg]
	if was == to {
		return nil
	}
	old, oldSocket := *c, c.shared[id.Leg]
	c.shared[id.Leg] = nil
	if shared {
		n, err := open(context.Background(), r.cfg.Listen, to.Port, to.Remote, s)
		if err != nil {
			c.shared[id.Leg] = oldSocket
			return err
		}
		c.shared[id.Leg] = n
		r.start(n)
	}
	c.legs[id.Leg] = to
	delete(s.legs, was)
	s.legs[to] = id
	if pair, ok := c.pair(); ok {
		if err := r.plane.Add(pair); err != nil {
			return err
		}
	}
	if pair, ok := old.pair(); ok {
		s.settleLocked(r.plane.Remove(pair))
	}
	if oldSocket != nil {
		r.stop(oldSocket)
	}
	r.releaseLocked(c)
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
				r.send(way, h.packet, h.ecn)
			}
		}
		c.held[n] = nil
	}
}

// hold keeps a packet of a bound leg that has no way yet, and drops every
// other one.
func (r *Relay) hold(s *socket, from netip.AddrPort, packet []byte, ecn byte) {
	if s.owner == nil {
		r.cfg.Drops.Add(drop.UnknownSource) // bound legs have sockets of their own
		return
	}
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	id, ok := s.owner.legs[bpf.Leg{Remote: from, Port: s.port}]
	if !ok || s.owner.closed {
		r.cfg.Drops.Add(drop.UnknownSource)
		return
	}
	c := s.owner.connections[id.Connection]
	if _, joined := c.pair(); !joined && len(c.held[id.Leg]) >= MaxHeld {
		r.cfg.Drops.Add(drop.NotJoined)
		return
	}
	c.held[id.Leg] = append(c.held[id.Leg], held{packet: append([]byte(nil), packet...), ecn: ecn})
	r.releaseLocked(c) // if the other leg was bound since the reader looked
}
