package peers

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
	"github.com/netport/netport/proto/wire"
)

// Whoever wants a tunnel gets the one there is: one session, however many ask,
// and on both sides.
func TestOneTunnelServesAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var asking sync.WaitGroup
		for range 5 {
			asking.Go(func() {
				s := w.talk()
				s.close()
			})
		}
		asking.Wait()
		s := w.plant.stream(w.plant.mustTunnel(0))
		s.echoes(time.Second)
		s.close()
		if list := w.requests(); len(list) != 1 {
			t.Errorf("asked for sessions: %v, want once", list)
		}
		a, b := w.ann.only(), w.plant.only()
		if a.Tunnel != b.Tunnel || a.Session != b.Session || !a.Opener || b.Opener || !a.Up || a.Relay != "r1" || a.Path != wayName {
			t.Errorf("status %+v at ann, %+v at plant", a, b)
		}
	}, "r1")
}

func TestIdleTunnelIsClosedAndItsSessionGivenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ann.mustTunnel(time.Second)
		time.Sleep(idleTime + time.Minute)
		for _, p := range []*portal{w.ann, w.plant} {
			if list := p.pool.Status(); len(list) > 0 {
				t.Errorf("%s has %+v", p.name, list)
			}
			p.wantNothingLeft()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.sessions) > 0 || len(w.done) == 0 || w.done[0].reason != wire.ReasonIdle {
			t.Errorf("the server has %d sessions, given back %v", len(w.sessions), w.done)
		}
	}, "r1")
}

// A permission names a portal by name and key: a new key is another portal.
func TestTunnelIsOnlyForTheKeyThatTheGrantNames(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ann.named = identity.HashKey(identitytest.New(t).Credentials(identity.Portal, "plant").Leaf())
		_, err := w.ann.pool.Tunnel(t.Context(), "plant", wire.GrantID{1})
		wantUnavailable(t, err, wire.ReasonWrongPeer)
		w.mu.Lock()
		w.ann.named = identity.KeyHash{} // the right one
		w.mu.Unlock()
		w.ann.mustTunnel(0)
	}, "r1")
}

func TestSessionThatCannotBeIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		self := wire.Session{ID: wire.NewSessionID(), Peer: "ann", Relay: wire.RelayAccess{Name: "r1"}}
		unknown := wire.Session{ID: wire.NewSessionID(), Peer: "plant", Relay: wire.RelayAccess{Name: "unknown"}}
		w.ann.pool.Accept(self)
		w.ann.pool.Accept(unknown)
		w.wantDone(w.ann, self.ID, wire.ReasonProtocol)
		w.wantDone(w.ann, unknown.ID, wire.ReasonForbidden)
		w.ann.wantNothingLeft()
		if n := w.relay("r1").tried(); n > 0 {
			t.Errorf("the relay was dialled %d times", n)
		}
	}, "r1")
}

// F38: what one peer's sessions may take is bounded, and one in which nothing
// goes on any more makes room.
func TestSessionsWithAPeerAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.relay("r1").set(false, true) // nobody ever comes up
		var ids []wire.SessionID
		for i := range maxPerPeer + 1 {
			info := wire.Session{ID: wire.NewSessionID(), Peer: "plant", Relay: wire.RelayAccess{Name: "r1"}}
			w.ann.pool.Accept(info)
			if i == 0 {
				w.ann.pool.Accept(info) // told again, it is no other
			}
			ids = append(ids, info.ID)
		}
		w.wantDone(w.ann, ids[maxPerPeer], wire.ReasonBusy)
		w.mu.Lock()
		refused := len(w.done)
		w.mu.Unlock()
		if refused != 1 {
			t.Errorf("%d sessions were given back, want that beyond the bound", refused)
		}
		time.Sleep(time.Minute)
		for _, id := range ids[:maxPerPeer] {
			w.wantDone(w.ann, id, wire.ReasonCarrierLost)
		}
	}, "r1")
}

// What is open may finish, and nothing begins.
func TestDrainingPoolOpensNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.talk()
		drained := make(chan struct{})
		go func() {
			w.ann.pool.Drain(context.Background())
			close(drained)
		}()
		synctest.Wait()
		_, err := w.ann.tunnel(time.Second)
		wantUnavailable(t, err, wire.ReasonShutdown)
		s.echoes(time.Second)
		select {
		case <-drained:
			t.Error("drained, with a stream open")
		default:
		}
		s.close()
		<-drained
	}, "r1")
}
