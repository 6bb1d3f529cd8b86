package hub

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/netport/netport/proto/control"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/audit"
)

const (
	// aliveAfter is how long after it was asked for a sign of life a connection that
	// is still there is known to have given one.
	aliveAfter = control.ProbeTimeout + time.Second
	// contestTime is for how long after its last sign a contest is shown.
	contestTime = time.Hour
	// recordEvery is how often at most a contest that goes on is recorded again.
	recordEvery = 10 * time.Minute
)

// takenText is what the younger of two connections of one identity is told, replacedText
// the older one when its place was taken.
const (
	takenText    = "this identity has just connected from elsewhere: if that was another machine, find it; one identity is for one machine"
	replacedText = "another machine with this identity has connected: one identity is for one machine"
)

// Contest is two machines that use one identity: one is a copy of the other, made by
// mistake or stolen. It is known by two connections that are alive at the same time: a
// machine that comes anew, from another network perhaps, has left its older one.
type Contest struct {
	Since  time.Time      `json:"since"`
	Last   time.Time      `json:"last"`
	First  netip.AddrPort `json:"first"`  // who held the name when it was last contested
	Second netip.AddrPort `json:"second"` // who came

	recorded time.Time
}

// takeOver lets c take the place of old, unless old has just taken another's. Then old
// has to show that it is alive, and c may come again: so two machines change places every
// 10 seconds at most. The mutex is held.
func takeOver[Out wire.Message](h *Hub, old, c *connection[Out]) bool {
	id := c.peer.ID
	if !old.asked.IsZero() && c.since.Sub(old.asked) > aliveAfter {
		h.contested(id, old.address, c.address, c.since)
	}
	if c.since.Sub(h.switched[id]) < switchTime {
		if old.asked.IsZero() {
			old.asked = c.since
		}
		h.counts.fights.Add(string(id.Role))
		old.link.Probe()
		return false
	}
	h.switched[id] = c.since
	h.log.Info("newer connection takes over", "peer", id, "first", old.address, "second", c.address)
	old.link.Close(wire.ReasonReplaced, replacedText)
	return true
}

// contested notes that both connections of an identity are alive. The mutex is held.
func (h *Hub) contested(id identity.ID, first, second netip.AddrPort, now time.Time) {
	k := h.contests[id]
	if k == nil || now.Sub(k.Last) > contestTime {
		k = &Contest{Since: now}
		h.contests[id] = k
	}
	k.First, k.Second, k.Last = first, second, now
	if now.Sub(k.recorded) < recordEvery {
		return
	}
	k.recorded = now
	h.log.Warn("two machines use one identity: find the copy; if it is not yours, revoke the name and invite it anew", "peer", id, "first", first, "second", second)
	h.audit.Write(audit.Record{
		Event: "contest", Answer: audit.Refused, Portal: id.Name, From: second.String(),
		Detail: fmt.Sprintf("two machines use one identity: %s, from %s and from %s", id, first, second),
	})
}

// contestOf returns the contest for an identity that is shown now, or nil. The mutex is
// held.
func (h *Hub) contestOf(id identity.ID, now time.Time) *Contest {
	k := h.contests[id]
	if k == nil {
		return nil
	}
	if now.Sub(k.Last) > contestTime {
		delete(h.contests, id)
		return nil
	}
	shown := *k
	return &shown
}

// Contested is an identity that two machines use, as the operator is shown it.
type Contested struct {
	Role identity.Role `json:"role"`
	Name string        `json:"name"`
	Contest
}

// Contests returns the identities that two machines use, now or within the last hour.
func (h *Hub) Contests() []Contested {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []Contested{}
	now := time.Now()
	for id := range h.contests {
		if k := h.contestOf(id, now); k != nil {
			list = append(list, Contested{id.Role, id.Name, *k})
		}
	}
	slices.SortFunc(list, func(a, b Contested) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name)) })
	return list
}
