package control

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/wire"
)

// natConn is one end of a connection through a NAT that forgets it after a
// silence: then what is written goes nowhere.
type natConn struct {
	net.Conn
	hold time.Duration
	last *atomic.Int64 // of both ends, in Unix nanoseconds
	gone *atomic.Bool
}

func (c natConn) Write(b []byte) (int, error) {
	now := time.Now()
	if now.Sub(time.Unix(0, c.last.Swap(now.UnixNano()))) > c.hold {
		c.gone.Store(true)
	}
	if c.gone.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// throughNAT runs one connection after the other through a NAT, until the time
// is over, and returns how many there were.
func throughNAT(t *testing.T, r roles, hold time.Duration, p *Pauses, until time.Time) (connections int) {
	t.Helper()
	d := r.dialer()
	d.Pauses = func() *Pauses { return p }
	var dead suspect
	for time.Now().Before(until) {
		connections++
		a, b := net.Pipe()
		var last atomic.Int64
		var gone atomic.Bool
		last.Store(time.Now().UnixNano())
		dead.judge(p)
		conn, end, s := portalOf(t, r, d, natConn{a, hold, &last, &gone}, natConn{b, hold, &last, &gone}, nothing[wire.ToPortal](t))
		var server sync.WaitGroup
		server.Go(func() {
			for {
				typ, body := s.read()
				if body == nil {
					return
				}
				if typ == wire.TypePing {
					m, _ := wire.ParsePing(body)
					s.tls.Write(wire.AppendMessage(nil, wire.Pong(m)))
				}
			}
		})
		select {
		case <-end.done:
		case <-time.After(time.Until(until)):
			conn.Close(wire.ReasonShutdown, "")
			<-end.done
		}
		dead = suspect{conn.pauses, conn.suspect(), time.Now()}
		b.Close()
		server.Wait()
	}
	return connections
}

// TestPauseFindsWhatTheNATHolds: within a day it is the longest step below what
// the NAT holds, and few connections were lost on the way.
func TestPauseFindsWhatTheNATHolds(t *testing.T) {
	r := newRoles(t)
	for _, tt := range []struct {
		hold, want  time.Duration
		connections int
	}{
		{2 * time.Hour, 9 * time.Minute, 1},
		{330 * time.Second, 5 * time.Minute, 2},
		{250 * time.Second, 4 * time.Minute, 2},
		{200 * time.Second, 3 * time.Minute, 2},
		{70 * time.Second, time.Minute, 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			news := 0
			p := NewPauses(Learned{}, func() { news++ })
			got := throughNAT(t, r, tt.hold, p, time.Now().Add(24*time.Hour))
			if pause := p.next(time.Now()); pause != tt.want || got != tt.connections {
				t.Errorf("a NAT of %v: a pause of %v after %d connections, want %v after %d", tt.hold, pause, got, tt.want, tt.connections)
			}
			if news == 0 || news > 10 {
				t.Errorf("a NAT of %v: told %d times of something new", tt.hold, news)
			}
			// Started again, the portal knows it.
			p = NewPauses(p.Learned(), func() {})
			if again := throughNAT(t, r, tt.hold, p, time.Now().Add(24*time.Hour)); again != 1 {
				t.Errorf("a NAT of %v: %d connections on the second day", tt.hold, again)
			}
			if tt.want != 5*time.Minute {
				return
			}
			// A longer pause is tried again, but seldom.
			if month := throughNAT(t, r, tt.hold, p, time.Now().Add(28*24*time.Hour)); month > 5 {
				t.Errorf("a NAT of %v: %d connections in four weeks", tt.hold, month)
			}
		})
	}
}

// A half-open connection is noticed within 10 minutes whatever was learned.
func TestLongestPauseFindsAHalfOpenConnection(t *testing.T) {
	longest := pauses[len(pauses)-1]
	p := NewPauses(Learned{Held: 10 * time.Hour}, func() {})
	if got := p.next(time.Now()); got != longest {
		t.Errorf("a pause of %v, want at most %v", got, longest)
	}
	if longest+PongTimeout > 10*time.Minute || longest >= portalQuiet {
		t.Errorf("the longest pause is %v: F31 wants 10 minutes, and the server asks after %v", longest, portalQuiet)
	}
}

// What a kept file claims cannot make a portal ask all the time, or never.
func TestLearnedNonsenseIsBounded(t *testing.T) {
	now := time.Now()
	for _, l := range []Learned{
		{Held: -1}, {Held: 1}, {Held: 1<<63 - 1}, {Broken: 1, At: now}, {Broken: -1, At: now}, {Held: 5 * time.Minute, Broken: time.Minute, At: now},
		{Broken: time.Minute, At: now.Add(time.Hour)},
	} {
		p := NewPauses(l, func() {})
		for range 20 {
			d := p.next(now.Add(forgetBroken))
			if d < pauses[0] || d > pauses[len(pauses)-1] {
				t.Errorf("%+v: a pause of %v", l, d)
			}
			p.held(d)
		}
		if d := p.next(now.Add(forgetBroken)); d < KeepAlive {
			t.Errorf("%+v: stays at %v though everything was survived", l, d)
		}
	}
}

// An end that the next connection did not follow at once was the server's.
func TestServerThatWasAwayIsNotTheNetworksFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPauses(Learned{Held: 9 * time.Minute}, func() { t.Error("learned something") })
		dead := suspect{p, 9 * time.Minute, time.Now()}
		time.Sleep(soonAgain)
		dead.judge(p)
		other := NewPauses(Learned{}, func() { t.Error("learned of another network") })
		dead = suspect{p, 9 * time.Minute, time.Now()}
		dead.judge(other)
	})
}
