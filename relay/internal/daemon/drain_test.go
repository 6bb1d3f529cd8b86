package daemon

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
)

// another says that there is a relay elsewhere.
var another = wire.OtherRelays{Relays: []wire.OtherRelay{{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, First: 1024, Last: 2000}}}

func drainFor(d time.Duration) func(*config.Config) {
	return func(c *config.Config) { c.Drain = d }
}

// ends wants the relay to stop without an error.
func (s *server) ends(what string) {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("%s: %v", what, err)
		}
	case <-time.After(patience):
		s.t.Fatalf("%s: the relay does not stop", what)
	}
}

// busy has one leg send to the other for as long as it can: what is carried keeps
// a drain up.
func busy(a, b net.Conn) (stopped chan struct{}) {
	stopped = make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			if _, err := a.Write([]byte("x")); err != nil {
				return
			}
			if _, err := b.Read(make([]byte, 100)); err != nil {
				return
			}
		}
	}()
	return stopped
}

// F41: sessions are carried until the server has moved them, and no longer.
func TestRelayStopsWhenItsSessionsHaveMoved(t *testing.T) {
	s := newServer(t, drainFor(time.Minute))
	s.wantReady()
	s.send(another)
	var sessions []wire.CreateSession
	var a, b []net.Conn
	for _, opener := range []string{"a", "b"} {
		m := order(opener, "z")
		x, y := legs(t, m, s.create(m).TCP)
		carry(t, x, y, "before")
		sessions, a, b = append(sessions, m), append(a, x), append(b, y)
	}
	s.cancel()
	s.want("that it drains", wire.RelayDraining{Reason: wire.ReasonShutdown})
	s.wantRefused(order("a", "z"), wire.ReasonShutdown)
	if v := s.status(); !v.Draining {
		t.Error("the status does not say so")
	}
	carry(t, a[0], b[0], "while it drains")

	for i, m := range sessions {
		if i == 1 { // a server that comes in between is told as well
			s.hangUp()
			s.accept()
			s.wantReady(m)
			s.want("that it drains, again", wire.RelayDraining{Reason: wire.ReasonShutdown})
		}
		carry(t, b[i], a[i], "until it has moved")
		s.send(wire.EndSession{ID: m.ID, Reason: wire.ReasonReplaced})
		if over, ok := s.next("the end").(wire.SessionOver); !ok || over.ID != m.ID || over.Reason != wire.ReasonReplaced {
			t.Errorf("got %+v", over)
		}
	}
	s.ends("all have moved")
}

func TestWhatNobodyMovesEndsAfterTheDrain(t *testing.T) {
	s := newServer(t, drainFor(300*time.Millisecond))
	s.wantReady()
	s.send(another)
	m := order("a", "b")
	a, b := legs(t, m, s.create(m).TCP)
	stopped := busy(a, b)
	s.cancel()
	s.want("that it drains", wire.RelayDraining{Reason: wire.ReasonShutdown})
	if over, ok := s.next("its end").(wire.SessionOver); !ok || over.ID != m.ID || over.Reason != wire.ReasonShutdown || over.Forth == 0 {
		t.Errorf("got %+v, want the end of the session", over)
	}
	s.ends("the time is over")
	<-stopped
}

func TestDrainDoesNotWaitForSessionsThatDoNothing(t *testing.T) {
	s := newServer(t, drainFor(time.Minute))
	s.wantReady()
	s.send(another)
	m := order("a", "b")
	s.create(m)
	s.cancel()
	s.want("that it drains", wire.RelayDraining{Reason: wire.ReasonShutdown})
	s.want("its end", wire.SessionOver{ID: m.ID, Reason: wire.ReasonShutdown})
	s.ends("nothing happens")
}

func TestRelayStopsAtOnceWhereNobodyCouldMoveItsSessions(t *testing.T) {
	for what, alone := range map[string]func(*server){
		"no server": func(s *server) {
			s.send(another)
			s.hangUp()
			s.await("it knows", func(v Status) bool { return !v.Connected })
		},
		"no other relay": func(*server) {},
	} {
		s := newServer(t, drainFor(time.Minute))
		s.wantReady()
		m := order("a", "b")
		a, b := legs(t, m, s.create(m).TCP)
		carry(t, a, b, "x")
		alone(s)
		if err := local.Call(t.Context(), s.cfg.Socket, "drain", nil, nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: drained, %v", what, err)
		}
		stopped := busy(a, b)
		s.ends(what)
		<-stopped
	}
}

func TestDrainCommandEmptiesARunningRelay(t *testing.T) {
	s := newServer(t, drainFor(500*time.Millisecond))
	s.wantReady()
	s.send(another)
	moved, left := order("a", "z"), order("b", "z")
	s.create(moved)
	s.create(left)
	result := make(chan Drained, 1)
	go func() {
		var d Drained
		if err := local.Call(t.Context(), s.cfg.Socket, "drain", nil, &d); err != nil {
			t.Error(err)
		}
		result <- d
	}()
	s.want("that it drains", wire.RelayDraining{Reason: wire.ReasonShutdown})
	s.send(wire.EndSession{ID: moved.ID, Reason: wire.ReasonReplaced})
	s.want("the end of the one that has moved", wire.SessionOver{ID: moved.ID, Reason: wire.ReasonReplaced})
	s.want("the end of the other", wire.SessionOver{ID: left.ID, Reason: wire.ReasonShutdown})
	if got := <-result; got != (Drained{Moved: 1, Left: 1}) {
		t.Errorf("drained %+v", got)
	}
	if v := s.status(); !v.Draining || len(v.Sessions) != 0 {
		t.Errorf("status %+v", v)
	}
	s.wantRefused(order("a", "z"), wire.ReasonShutdown)
}
