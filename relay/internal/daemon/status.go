package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/keeper"
	"github.com/netport/netport/proto/reload"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

// Status is what "netport-relay status" shows.
type Status struct {
	Name        string        `json:"name"`
	Domain      string        `json:"domain"`
	Version     string        `json:"version"`
	Started     time.Time     `json:"started"`
	Connected   bool          `json:"connected"` // to a server
	Server      string        `json:"server"`    // connected now or last
	Certificate time.Time     `json:"certificate_until"`
	Identity    keeper.Status `json:"identity"`
	Capacity    int           `json:"capacity"`
	Draining    bool          `json:"draining"` // takes no session any more
	// Mode is what carries the packets of sessions: modes of the kernel plane, best
	// first, or "userspace". Why says why no better one could be had.
	Mode       string      `json:"mode"`
	Why        string      `json:"why,omitempty"`
	Pinned     bool        `json:"pinned"` // the kernel goes on without the daemon
	Interfaces []Interface `json:"interfaces"`
	// What packet mode has now: connections in the kernel, and handshakes that are
	// not done.
	Flows      int `json:"tcp_flows"`
	Handshakes int `json:"tcp_handshakes"`
	// UDPShort is how many UDP pairs the kernel carries; the others are in user
	// space, by why.
	UDPShort int               `json:"udp_short"`
	UDPLong  map[string]uint64 `json:"udp_refused,omitempty"`
	Pairs    int               `json:"tcp_pairs"`    // joined in user space
	Waiting  int               `json:"tcp_waiting"`  // proven legs without the other, those of tickets apart
	Unproven int               `json:"tcp_unproven"` // connections that have proven nothing yet
	// Tickets is how many of the sessions are tickets', TicketKeys with how many keys
	// they are taken (0: none is), and TicketLegs how many TCP legs of them wait.
	Tickets    int               `json:"tickets"`
	TicketKeys int               `json:"ticket_keys"`
	TicketLegs int               `json:"ticket_legs_waiting"`
	Bytes      uint64            `json:"bytes"` // carried since the start
	Drops      map[string]uint64 `json:"drops"`
	// KernelDrops is what the kernel's program has dropped since it was loaded
	// first; reasons without a drop are left out.
	KernelDrops map[string]uint64 `json:"kernel_drops,omitempty"`
	Sessions    []Session         `json:"sessions"`
	Reload      *reload.Report    `json:"reload,omitempty"` // the last time that the configuration was read anew
}

// Interface is one network interface as the kernel plane uses it.
type Interface struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	Why  string `json:"why,omitempty"` // why no better mode was possible
}

// Session is one session in a Status.
type Session struct {
	ID      wire.SessionID `json:"session"`
	Opener  string         `json:"opener,omitempty"` // the relay knows no names of a ticket's
	Peer    string         `json:"peer,omitempty"`
	Ticket  time.Time      `json:"ticket_until,omitzero"` // only of a ticket's session
	Port    uint16         `json:"port"`                  // 0: the shared ports only
	Opened  time.Time      `json:"opened"`
	Expires time.Time      `json:"expires"`
	Spliced int            `json:"tcp_joined"` // connections in user space, since it was opened
	Packet  int            `json:"tcp_packet"` // connections in the kernel, since it was opened
	Flows   int            `json:"tcp_flows"`  // those of them that are there now
	Bound   int            `json:"udp_bound"`
	Forth   uint64         `json:"bytes_forth"` // from the opener
	Back    uint64         `json:"bytes_back"`
}

// status answers the command of that name.
func (d *Daemon) status(context.Context, json.RawMessage) (any, error) {
	d.mu.Lock()
	s := Status{
		Name: d.id.Name, Domain: d.id.Domain, Version: command.Version, Started: d.started,
		Connected: d.conn != nil, Server: d.server, Certificate: d.credentials.Leaf().NotAfter.UTC(), Identity: d.identity.Status(), Capacity: d.cfg.Capacity, Draining: d.draining || d.stopping,
		Pairs: d.splice.Pairs(), Drops: d.drops.All(), Sessions: []Session{}, Interfaces: []Interface{}, Reload: d.reload.Last(),
	}
	total := d.ended
	d.mu.Unlock()
	waiting := d.splice.Waiting()
	s.Waiting, s.TicketLegs, s.Unproven = waiting.Legs, waiting.Standing, waiting.Unproven
	s.TicketKeys, s.Tickets = d.leases.Tickets()
	s.Mode, s.Why = d.mode()
	if d.plane != nil {
		d.kernelStatus(&s)
	}
	list := d.leases.List()
	slices.SortFunc(list, func(a, b lease.Info) int {
		return cmp.Or(a.Created.Compare(b.Created), slices.Compare(a.ID[:], b.ID[:]))
	})
	for _, i := range list {
		t := d.traffic(i.ID)
		total = total.Plus(t)
		v := Session{
			ID: i.ID, Opener: i.Portals[0], Peer: i.Portals[1], Ticket: i.Ends, Port: i.Port, Opened: i.Created, Expires: i.Expires,
			Spliced: i.Spliced, Bound: i.Bound, Forth: t[0], Back: t[1],
		}
		if d.plane != nil {
			v.Flows, v.Packet = d.kernel.Joined(i.ID)
		}
		s.Sessions = append(s.Sessions, v)
	}
	s.Bytes = total[0] + total[1]
	return s, nil
}

// kernelStatus adds what the kernel plane does.
func (d *Daemon) kernelStatus(s *Status) {
	s.Pinned = d.plane.Persistent()
	for _, i := range d.plane.Interfaces() {
		s.Interfaces = append(s.Interfaces, Interface(i))
	}
	s.Handshakes, s.Flows = d.kernel.Counts()
	s.UDPShort, s.UDPLong = d.udp.Shortcuts()
	s.KernelDrops = d.plane.Drops()
	maps.DeleteFunc(s.KernelDrops, func(_ string, n uint64) bool { return n == 0 })
}
