package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/netport/netport/proto/command"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/lease"
)

// Status is what "netport-relay status" shows.
type Status struct {
	Name      string            `json:"name"`
	Domain    string            `json:"domain"`
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Connected bool              `json:"connected"` // to a server
	Server    string            `json:"server"`    // connected now or last
	Capacity  int               `json:"capacity"`
	TCP       string            `json:"tcp"` // how TCP legs are carried
	UDP       string            `json:"udp"` // how UDP legs are carried
	Pairs     int               `json:"tcp_pairs"`
	Waiting   int               `json:"tcp_waiting"`  // proven legs without the other
	Unproven  int               `json:"tcp_unproven"` // connections that have proven nothing yet
	Bytes     uint64            `json:"bytes"`        // carried since the start
	Drops     map[string]uint64 `json:"drops"`
	Sessions  []Session         `json:"sessions"`
}

// Session is one session in a Status.
type Session struct {
	ID      wire.SessionID `json:"session"`
	Opener  string         `json:"opener"`
	Peer    string         `json:"peer"`
	Port    uint16         `json:"port"` // 0: the shared ports only
	Opened  time.Time      `json:"opened"`
	Expires time.Time      `json:"expires"`
	Spliced int            `json:"tcp_joined"` // connections, since it was opened
	Bound   int            `json:"udp_bound"`
	Forth   uint64         `json:"bytes_forth"` // from the opener
	Back    uint64         `json:"bytes_back"`
}

// status answers the command of that name.
func (d *Daemon) status(context.Context, json.RawMessage) (any, error) {
	d.mu.Lock()
	s := Status{
		Name: d.id.Name, Domain: d.id.Domain, Version: command.Version, Started: d.started,
		Connected: d.conn != nil, Server: d.server, Capacity: d.cfg.Capacity,
		TCP: "splice", UDP: d.udp.Plane().Name(), Pairs: d.splice.Pairs(), Drops: d.drops.All(),
		Sessions: []Session{},
	}
	total := d.ended
	d.mu.Unlock()
	s.Waiting, s.Unproven = d.splice.Waiting()
	list := d.leases.List()
	slices.SortFunc(list, func(a, b lease.Info) int {
		return cmp.Or(a.Created.Compare(b.Created), slices.Compare(a.ID[:], b.ID[:]))
	})
	for _, i := range list {
		t := d.splice.Traffic(i.ID).Plus(d.udp.Traffic(i.ID))
		total = total.Plus(t)
		s.Sessions = append(s.Sessions, Session{
			ID: i.ID, Opener: i.Portals[0], Peer: i.Portals[1], Port: i.Port, Opened: i.Created, Expires: i.Expires,
			Spliced: i.Spliced, Bound: i.Bound, Forth: t[0], Back: t[1],
		})
	}
	s.Bytes = total[0] + total[1]
	return s, nil
}
