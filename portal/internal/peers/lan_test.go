package peers

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// hall is a local network: those who look for each other with the same key hear where
// the other is.
type hall struct {
	mu    sync.Mutex // guards the following
	looks []*looker
}

type looker struct {
	own, peer string
	key       [32]byte
	found     func([]wire.Candidate)
}

// Look implements LAN.
func (h *hall) Look(own, peer string, key [32]byte, found func([]wire.Candidate)) (end func()) {
	l := &looker{own, peer, key, found}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.looks {
		if o.own == peer && o.peer == own && o.key == key {
			for _, of := range []*looker{o, l} {
				of.found([]wire.Candidate{{Transport: wire.CandidateUDP, Origin: wire.OriginLAN, Addr: ownAddr}})
			}
		}
	}
	h.looks = append(h.looks, l)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.looks = slices.DeleteFunc(h.looks, func(o *looker) bool { return o == l })
	}
}

// empty wants that nobody looks for anybody.
func (h *hall) empty(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.looks {
		t.Errorf("%s looks for %s", l.own, l.peer)
	}
}

// inHall is inWorld for two portals on one local network.
func inHall(t *testing.T, story func(t *testing.T, w *world, h *hall)) {
	t.Helper()
	h := &hall{}
	inWorldWith(t, h, func(t *testing.T, w *world) { story(t, w, h) }, "r1")
}

// secretWith and partners are what the grant of the two says.
func (p *portal) secretWith(string) ([32]byte, bool) {
	_, joined := p.isJoined("")
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.secret, joined
}

func (p *portal) partners() []string {
	if _, joined := p.isJoined(""); !joined {
		return nil
	}
	return []string{p.w.other(p).name}
}

// Two portals without server, relay and ticket have a tunnel over their local network, by
// themselves, and get a relay in reserve when there is one again. While the server is
// there nobody looks for anybody.
func TestNeighboursNeedNobody(t *testing.T) {
	inHall(t, func(t *testing.T, w *world, h *hall) {
		time.Sleep(time.Minute)
		h.empty(t)
		w.serverGoes()
		w.relay("r1").set(true, false)
		time.Sleep(awayTime + 2*ticketTime) // they look for each other, in vain
		w.lay(true)
		time.Sleep(2 * ticketTime)
		s := w.ann.stream(w.ann.mustTunnel(0))
		s.echoes(10 * hop)
		w.wantPath(wireName, 0)
		if a, b := w.ann.only(), w.plant.only(); a.Tunnel != b.Tunnel {
			t.Errorf("%+v at ann, %+v at plant", a, b)
		}
		if list := w.ann.pool.TicketsInUse(); len(list) > 0 {
			t.Errorf("tickets %v", list)
		}
		w.requests()
		w.relay("r1").set(false, false)
		w.serverComes()
		time.Sleep(time.Minute)
		w.wantPath(wireName, 1)
		w.lay(false)
		s.echoes(10 * hop)
		w.wantPath(wayName, 1)
		time.Sleep(time.Minute)
		h.empty(t)
		s.close()
	})
}

// What neighbours have stays within their grant while it runs: where the policy changes
// to relays only, nothing is left of it, and the tunnel goes on by the relay.
func TestNeighboursLeaveAsTheirGrantSays(t *testing.T) {
	inHall(t, func(t *testing.T, w *world, h *hall) {
		w.lay(true)
		w.serverGoes()
		time.Sleep(2 * awayTime)
		s := w.ann.stream(w.ann.mustTunnel(0))
		s.echoes(10 * hop)
		w.serverComes()
		time.Sleep(time.Minute)
		if direct, _ := w.ann.ways(); len(direct) == 0 {
			t.Error("nothing is left of what they had as neighbours")
		}
		w.setPaths(grant.DirectNever)
		time.Sleep(5 * time.Second)
		if direct, _ := w.ann.ways(); len(direct) > 0 {
			t.Errorf("still: %+v", direct)
		}
		w.wantPath(wayName, 1)
		s.echoes(10 * hop)
		h.empty(t)
		s.close()
	})
}

// When the last grant ends, with no server to say so, a tunnel among neighbours ends as any
// that carries nothing, and they do not meet again.
func TestNeighboursPartWithTheirGrant(t *testing.T) {
	inHall(t, func(t *testing.T, w *world, h *hall) {
		w.lay(true)
		w.serverGoes()
		w.relay("r1").set(true, false)
		time.Sleep(2 * awayTime)
		s := w.ann.stream(w.ann.mustTunnel(0))
		s.echoes(10 * hop)
		s.close()
		w.ungrant()
		w.ann.pool.Review()
		w.plant.pool.Review()
		time.Sleep(idleTime + time.Minute)
		if n := len(w.ann.tunnels()) + len(w.plant.tunnels()); n > 0 {
			t.Errorf("%d tunnels with a carrier: %+v", n, w.ann.pool.Status())
		}
		h.empty(t)
	})
}

// A tunnel on the local network is only for those whom a grant joins, and whom the policy
// lets meet without a relay; it ends with either.
func TestNeighboursMeetAsTheirGrantSays(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"no grant in common": func(w *world) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.plant.secret[0] ^= 1
		},
		"by relays only": func(w *world) { w.setPaths(grant.DirectNever) },
	} {
		inHall(t, func(t *testing.T, w *world, h *hall) {
			change(w)
			w.lay(true)
			w.serverGoes()
			w.relay("r1").set(true, false)
			time.Sleep(time.Minute)
			if n := len(w.ann.tunnels()) + len(w.plant.tunnels()); n > 0 {
				t.Errorf("%s: %d tunnels", name, n)
			}
		})
	}
}
