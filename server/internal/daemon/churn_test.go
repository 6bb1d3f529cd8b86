package daemon

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/netport/netport/proto/wire"
	"github.com/netport/netport/server/internal/broker"
)

// G9, the server's part: sessions that come and go leave nothing in it, neither
// those that a portal gives back nor those that the relay ends.
func TestSessionsThatComeAndGoLeaveNothing(t *testing.T) {
	const sessions = 10_000
	const openers = 20 // each may send the server a few messages a second
	names := []string{"plant", "relay-1"}
	var forwards []string
	for i := range openers {
		names = append(names, fmt.Sprint("p", i))
		forwards = append(forwards, fmt.Sprintf("f%d: p%[1]d tcp://127.0.0.1:8080 -> plant tcp://10.0.0.5:80", i))
	}
	r := newRig(t, names...)
	r.apply(forwards...)
	relay, plant := r.relay("relay-1"), r.portal("plant")
	r.grants(plant, openers)
	var all []*peer[wire.ToPortal, wire.FromPortal]
	var grants []wire.GrantID
	for i := range openers {
		p := r.portal(fmt.Sprint("p", i))
		list, _ := r.grants(p, 1)
		next[wire.PeerState](plant)
		all, grants = append(all, p), append(grants, list[fmt.Sprint("f", i)].ID())
	}
	round := func(i int) {
		opener := all[i%openers]
		opener.conn.Send(wire.OpenSession{Request: uint32(i), Peer: "plant", Grant: grants[i%openers], Transports: wire.TransportSplice})
		id := next[wire.CreateSession](relay).ID
		relay.conn.Send(wire.SessionReady{ID: id, TCP: 20001})
		next[wire.Session](opener)
		next[wire.Session](plant)
		over := wire.SessionOver{ID: id, Reason: wire.ReasonIdle, Forth: 1, Back: 1}
		if i/openers%2 == 0 {
			relay.conn.Send(over)
			next[wire.SessionEnded](opener)
		} else {
			opener.conn.Send(wire.SessionDone{Session: id, Reason: wire.ReasonIdle})
			next[wire.EndSession](relay)
			relay.conn.Send(over)
		}
		next[wire.SessionEnded](plant)
	}
	round(1) // what is made once is there before
	fds, routines := descriptors(t), runtime.NumGoroutine()
	began := time.Now()
	for i := range sessions {
		round(i + 2)
	}
	took := time.Since(began)
	t.Logf("%d sessions in %v: %.0f a second", sessions, took, float64(sessions)/took.Seconds())
	r.until("no session is left", func() bool {
		var left []broker.SessionView
		r.ask(CommandSessions, &left)
		return len(left) == 0
	})
	r.until("descriptors are back", func() bool { return descriptors(t) == fds })
	r.until("goroutines are back", func() bool { return runtime.NumGoroutine() <= routines+10 })
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
