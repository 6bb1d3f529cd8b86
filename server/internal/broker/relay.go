package broker

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
)

// lowestPort is the lowest session port that a relay may have.
const lowestPort = 1024

// relay is one that is connected, or was while it held sessions.
type relay struct {
	name      string
	online    bool
	addresses []netip.Addr // as the operator gave them
	ready     *wire.RelayReady
	load      wire.RelayLoad
	ours      int       // sessions of ours there, asking ones included
	avoid     time.Time // it did not answer: left out until then
	draining  bool      // it is about to stop, or has stopped since: it gets no session, and those it has move away
	since     time.Time // online or away since then
	checked   bool      // what it held before was compared with what we know
	probed    time.Time // it was last asked for a sign of life
}

// RelayUp says that a relay is connected and where portals find it. It is used
// once it has said what it offers.
func (b *Broker) RelayUp(now time.Time, name string, addresses []netip.Addr) {
	r := b.relays[name]
	if r == nil {
		r = &relay{name: name}
		b.relays[name] = r
	} else if r.online {
		b.relayLost(now, r)
	}
	r.online, r.addresses, r.ready, r.load = true, addresses, nil, wire.RelayLoad{}
	r.since, r.checked, r.avoid, r.draining = now, false, time.Time{}, false
	for _, s := range b.sessions {
		if s.relay == name {
			s.confirmed = false
		}
	}
}

// RelayDown says that a relay is connected no more. What it was asked for goes
// to another; its open sessions are kept, for it may still forward them.
func (b *Broker) RelayDown(now time.Time, name string) {
	r := b.relays[name]
	if r == nil || !r.online {
		return
	}
	r.online, r.since = false, now
	b.relayLost(now, r)
	b.tidyRelay(r)
}

func (b *Broker) tidyRelay(r *relay) {
	if !r.online && r.ours == 0 {
		delete(b.relays, r.name)
	}
}

func (b *Broker) relayLost(now time.Time, r *relay) {
	r.online = false
	for _, s := range b.sessions {
		if s.relay == r.name && !s.open {
			b.again(now, s)
		}
	}
	for id, e := range b.ending {
		if e.relay == r.name {
			delete(b.ending, id)
			b.out.Record(e.record)
		}
	}
}

// FromRelay handles a message of a connected relay.
func (b *Broker) FromRelay(now time.Time, name string, m wire.FromRelay) {
	r := b.relays[name]
	if r == nil || !r.online {
		return
	}
	switch m := m.(type) {
	case wire.RelayReady:
		b.relayReady(now, r, m)
	case wire.RelayLoad:
		r.load = m
	case wire.RelayDraining:
		b.drain(now, r)
	case wire.SessionReady:
		b.sessionReady(now, r, m)
	case wire.SessionRefused:
		if s := b.sessions[m.ID]; s != nil && s.relay == name && !s.open {
			b.again(now, s)
		}
	case wire.SessionOver:
		b.sessionOver(now, r, m)
	}
}

// relayReady takes what a relay offers. One that holds many sessions says it
// several times, each time with other sessions.
func (b *Broker) relayReady(now time.Time, r *relay, m wire.RelayReady) {
	if m.First < lowestPort {
		b.drop(r, fmt.Sprintf("session ports from %d on: the lowest is %d", m.First, lowestPort))
		return
	}
	held := m.Sessions
	m.Sessions = nil
	if r.ready != nil && !sameOffer(*r.ready, m) {
		b.drop(r, "it changed its ports or capacity while it was connected")
		return
	}
	first := r.ready == nil
	r.ready = &m
	for _, h := range held {
		b.holds(now, r, h)
	}
	if first {
		b.place(r)
	}
	if len(held) < wire.MaxHeld {
		b.check(now, r) // that was all of them
	}
}

// drop closes the connection of a relay that broke the rules, and uses it no
// more until it has connected anew.
func (b *Broker) drop(r *relay, text string) {
	r.ready = nil
	b.out.DropRelay(r.name, text)
}

func sameOffer(a, b wire.RelayReady) bool {
	return a.First == b.First && a.Last == b.Last && a.SharedTCP == b.SharedTCP && a.SharedUDP == b.SharedUDP &&
		a.Capacity == b.Capacity && a.Transports == b.Transports
}

// sessionReady opens a session, if the relay's answer is one it may give.
func (b *Broker) sessionReady(now time.Time, r *relay, m wire.SessionReady) {
	s := b.sessions[m.ID]
	switch {
	case s == nil || s.relay != r.name:
		// Too late: another relay was asked, or nobody wants it any more.
		b.toRelay(r.name, wire.EndSession{ID: m.ID, Reason: wire.ReasonTimeout})
		return
	case s.open && s.access.TCP == m.TCP && s.access.UDP == m.UDP && s.packet == m.Packet:
		return // said twice
	case s.open:
		b.drop(r, "it moved a session to other ports")
		return
	}
	if lie := r.lie(m, s.transports); lie != "" {
		b.drop(r, lie)
		b.again(now, s)
		return
	}
	if m.Packet[0] == 0 {
		s.transports &^= wire.TransportPacket
	}
	s.packet = m.Packet
	b.openAt(now, s, wire.RelayAccess{
		Name: r.name, Addresses: r.addresses, TCP: m.TCP, UDP: m.UDP,
		SharedTCP: r.ready.SharedTCP, SharedUDP: r.ready.SharedUDP,
	})
}

// lie reports what is wrong with the ports of an answer: portals are sent
// there, so they must be the relay's own. transports is what it was asked for.
func (r *relay) lie(m wire.SessionReady, transports wire.Transports) string {
	if r.ready == nil {
		return "it answered before it had said what it offers"
	}
	for _, p := range []uint16{m.TCP, m.UDP} {
		if p != 0 && (p < r.ready.First || p > r.ready.Last) {
			return fmt.Sprintf("it answered with port %d, its session ports are %d to %d", p, r.ready.First, r.ready.Last)
		}
	}
	for _, p := range m.Packet {
		// Compared so that it cannot overflow: the portals use the whole block.
		if p != 0 && (p < r.ready.First || p > r.ready.Last || r.ready.Last-p < wire.PacketPorts-1) {
			return fmt.Sprintf("it answered with packet ports from %d on, its session ports are %d to %d", p, r.ready.First, r.ready.Last)
		}
	}
	if m.Packet[0] != 0 && transports&wire.TransportPacket == 0 {
		return "it answered with packet ports that nobody asked for"
	}
	if m.TCP == 0 && m.UDP == 0 && m.Packet[0] == 0 && r.ready.SharedTCP == 0 && r.ready.SharedUDP == 0 {
		return "it answered without a port"
	}
	return ""
}

// sessionOver ends a session that is over at the relay.
func (b *Broker) sessionOver(now time.Time, r *relay, m wire.SessionOver) {
	if e, ok := b.ending[m.ID]; ok && e.relay == r.name {
		delete(b.ending, m.ID)
		e.record.Forth, e.record.Back = m.Forth, m.Back
		b.out.Record(e.record)
		return
	}
	s := b.sessions[m.ID]
	if s == nil || s.relay != r.name {
		return
	}
	if !s.open {
		b.again(now, s)
		return
	}
	b.close(now, s)
	for _, n := range s.names {
		b.toPortal(n, wire.SessionEnded{Session: s.id, Reason: passing(m.Reason)})
	}
	record := recordOf(s, audit.Ended)
	record.Reason, record.Forth, record.Back = m.Reason.String(), m.Forth, m.Back
	b.out.Record(record)
}

// passing returns a relay's reason as portals are told it: one with which a
// tunnel goes on over another session. A relay cannot end more than what it holds.
func passing(r wire.Reason) wire.Reason {
	if r.Passing() {
		return r
	}
	return wire.ReasonCarrierLost
}

// RelayView is a relay as the operator is shown it.
type RelayView struct {
	Name      string       `json:"name"`
	Ready     bool         `json:"ready"`
	Draining  bool         `json:"draining"`
	Addresses []netip.Addr `json:"addresses"`
	First     uint16       `json:"first_port"`
	Last      uint16       `json:"last_port"`
	Capacity  uint32       `json:"capacity"`
	Sessions  uint64       `json:"sessions"`
	Rate      uint64       `json:"bytes_per_second"`
	Since     time.Time    `json:"since"`
	// What the portals that are connected have measured.
	Measured int          `json:"measured_by"` // portals that it answered
	Silent   int          `json:"silent_to"`   // portals that it did not
	Median   Milliseconds `json:"median_round_trip_ms"`
}

// Relays returns the relays that are connected, by name.
func (b *Broker) Relays() []RelayView {
	var list []RelayView
	for _, r := range b.relays {
		if !r.online {
			continue
		}
		v := RelayView{
			Name: r.name, Ready: r.usable(), Draining: r.draining, Addresses: r.addresses,
			Sessions: r.held(), Rate: r.load.Rate, Since: r.since,
		}
		v.Measured, v.Silent, v.Median = b.measured(r.name)
		if r.ready != nil {
			v.First, v.Last, v.Capacity = r.ready.First, r.ready.Last, r.ready.Capacity
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b RelayView) int { return compare(a.Name, b.Name) })
	return list
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
