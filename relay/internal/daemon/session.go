package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

type conn = control.Conn[wire.ToRelay, wire.FromRelay]

// maxPortTries is how many ports are tried for one session, if other programs
// sit on the relay's ports.
const maxPortTries = 16

// maxOthers is how many other relays there may be.
const maxOthers = 10_000

// transports returns what the relay can carry.
func (d *Daemon) transports() wire.Transports {
	set := wire.TransportSplice | wire.TransportUDP
	if d.cfg.SharedTCP != 0 {
		set |= wire.TransportTLS
	}
	if d.plane != nil && d.cfg.PacketFirst != 0 {
		set |= wire.TransportPacket
	}
	return set
}

// serve is one connection to a server.
func (d *Daemon) serve(ctx context.Context, c *conn, _ wire.Welcome) error {
	d.connected(c)
	defer d.disconnected(c)
	d.identity.Connected(func(m keeper.FromBoth) { c.Send(m) })
	defer d.identity.Lost()
	var others []wire.OtherRelay // of a list that is not whole yet
	return c.Run(ctx, func(m wire.ToRelay) error {
		if taken, err := d.identity.Handle(m); taken || err != nil {
			return err
		}
		switch m := m.(type) {
		case wire.CreateSession:
			c.Send(d.create(m))
		case wire.EndSession:
			if !d.end(m.ID, m.Reason) {
				c.Send(wire.SessionOver{ID: m.ID, Reason: m.Reason})
			}
		case wire.TicketKeys:
			d.setTicketKeys(m.Keys)
		case wire.OtherRelays:
			if others = append(others, m.Relays...); len(others) > maxOthers {
				return fmt.Errorf("%w: more than %d other relays", wire.ErrMalformed, maxOthers)
			}
			if !m.More {
				d.sources.SetOthers(others)
				d.mu.Lock()
				d.others = len(others)
				d.mu.Unlock()
				others = nil
			}
		default:
			return fmt.Errorf("%w: a message of type %d at this point", wire.ErrMalformed, m.Type())
		}
		return nil
	})
}

// connected tells the server what the relay offers and which sessions it still
// holds. What ends from here on is told too.
func (d *Daemon) connected(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	list := slices.DeleteFunc(d.leases.List(), func(s lease.Info) bool { return s.Ticket() }) // of which no server knows
	for {
		ready := wire.RelayReady{
			First: d.cfg.First, Last: d.cfg.Last, SharedTCP: d.cfg.SharedTCP, SharedUDP: d.cfg.SharedUDP,
			Capacity: uint32(d.cfg.Capacity), Transports: d.transports(),
		}
		n := min(len(list), wire.MaxHeld)
		for _, s := range list[:n] {
			ready.Sessions = append(ready.Sessions, wire.HeldSession{
				ID: s.ID, Portals: s.Portals, Transports: s.Transports, Age: uint32(max(0, now.Sub(s.Created)/time.Second)), // a clock may be set back
			})
		}
		c.Send(ready)
		if list = list[n:]; len(list) == 0 {
			break
		}
	}
	if d.draining {
		c.Send(wire.RelayDraining{Reason: wire.ReasonShutdown})
	}
	d.conn, d.server = c, c.Peer().ID.Name
	d.load = wire.RelayLoad{} // of which the new server knows nothing
}

func (d *Daemon) disconnected(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn = nil
	}
}

// sendLocked tells the server, if there is one.
func (d *Daemon) sendLocked(m wire.FromRelay) {
	if d.conn != nil {
		d.conn.Send(m)
	}
}

// create holds a session for the server, or says why not.
func (d *Daemon) create(m wire.CreateSession) wire.FromRelay {
	s, fresh, err := d.open(m)
	var refused *lease.Refusal
	if errors.As(err, &refused) {
		d.counts.turned.Add(refused.Reason.String())
		d.log.Warn("session refused", "session", m.ID, "opener", m.Legs[0].Portal, "peer", m.Legs[1].Portal, "reason", refused.Reason, "error", refused.Text)
		return wire.SessionRefused{ID: m.ID, Reason: refused.Reason, Text: refused.Text}
	}
	if fresh {
		d.counts.opened.Add(byServer)
	}
	d.log.Info("session opened", "session", s.ID, "opener", s.Portals[0], "peer", s.Portals[1], "port", s.Port)
	ready := wire.SessionReady{ID: s.ID, Packet: s.Packet}
	if s.TCP() {
		ready.TCP = s.Port
	}
	if s.UDP() {
		ready.UDP = s.Port
	}
	return ready
}

// open makes a session and opens its port; fresh is false of one that was there. The error is a *lease.Refusal, and
// then nothing is left behind.
func (d *Daemon) open(m wire.CreateSession) (s lease.Session, fresh bool, err error) {
	if d.refusing() {
		return lease.Session{}, false, &lease.Refusal{Reason: wire.ReasonShutdown, Text: "the relay is stopping"}
	}
	if m.Transports &= d.transports(); m.Transports == 0 {
		return lease.Session{}, false, &lease.Refusal{Reason: wire.ReasonRelayRefused, Text: "the portals and this relay have no transport in common"}
	}
	if id, full := d.leases.Displaced(); full {
		d.end(id, wire.ReasonBusy) // a ticket's
	}
	if s, fresh, err = d.leases.Create(time.Now(), m); err != nil || !fresh {
		return s, fresh, err
	}
	for tries := 1; ; tries++ {
		if err = d.openPort(s); !errors.Is(err, syscall.EADDRINUSE) || tries == maxPortTries {
			break
		}
		d.log.Warn("session port in use by another program", "port", s.Port)
		if s, err = d.leases.MovePort(s.ID); err != nil {
			break
		}
	}
	if err == nil {
		return s, true, nil
	}
	d.leases.End(m.ID)
	var refused *lease.Refusal
	if !errors.As(err, &refused) {
		reason := wire.ReasonInternal
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EADDRINUSE) {
			reason = wire.ReasonBusy
		}
		refused = &lease.Refusal{Reason: reason, Text: err.Error()}
	}
	return lease.Session{}, false, refused
}

// openPort lets the legs of a session come in over what both portals can use.
func (d *Daemon) openPort(s lease.Session) error {
	if s.TCP() {
		if err := d.splice.Open(s); err != nil {
			return err
		}
	}
	if s.UDP() {
		if err := d.udp.Open(s); err != nil {
			d.splice.Close(s.ID)
			return err
		}
	}
	if s.Packet[0] != 0 {
		d.kernel.Open(s, lease.Traffic{})
	}
	return nil
}

// end ends a session and tells the server. It reports whether it was there.
func (d *Daemon) end(id wire.SessionID, reason wire.Reason) bool {
	if _, ticket := ticket.Ends(id); ticket {
		d.taking.Lock()
		defer d.taking.Unlock()
	}
	d.mu.Lock()
	d.ending++
	d.mu.Unlock()
	s, ok := d.leases.End(id)
	if !ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ending--
		return false
	}
	total := d.splice.Close(id).Plus(d.udp.Close(id))
	if d.plane != nil {
		total = total.Plus(d.kernel.Close(id))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending--
	d.ended = d.ended.Plus(total)
	d.counts.ended.Add(reason.String())
	if s.Ticket() { // of which no server knows
		d.log.Info("session of a ticket over", "session", id, "reason", reason, "forth", total[0], "back", total[1])
		return true
	}
	d.log.Info("session over", "session", id, "opener", s.Portals[0], "peer", s.Portals[1], "reason", reason, "forth", total[0], "back", total[1])
	d.sendLocked(wire.SessionOver{ID: id, Reason: reason, Forth: total[0], Back: total[1]})
	return true
}

// stop lets no new sessions be made and ends those there are, but for what the
// kernel carries on with.
func (d *Daemon) stop() {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	if d.persistent() {
		d.leave()
		return
	}
	for _, s := range d.leases.List() {
		d.end(s.ID, wire.ReasonShutdown)
	}
}

// portHint says what to do about a port that cannot be opened.
func portHint(port uint16, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program has it: choose another port in the configuration, or see \"take_over\" there if it is the server"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; name an address of this machine in \"addresses\""
	case errors.Is(err, fs.ErrPermission) && port < 1024:
		return "; ports below 1024 need CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start lowered"
	}
	return ""
}
