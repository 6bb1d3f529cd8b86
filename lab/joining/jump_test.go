package joining

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/lab/await"
	"github.com/netport/netport/lab/stage"
)

var full = flag.Bool("full", false, "let the clocks of all roles jump, by all that the threat list names, which takes minutes more")

// hour and decade are jumps of a clock, in seconds.
const (
	hour   = 3600
	decade = 10 * 365 * 24 * hour
)

// TestClocksJump: the clock of each daemon jumps while connections are carried, an hour and back, to 1970 and 10 years ahead.
// What is carried does not stand still, nothing is renewed in a storm, what is opened is judged by the new clock, and when
// that is right again all is as before, without a restart (F36). Without -full it is only the portal that decides who is
// let in, and an hour: what has another clock is built for it.
func TestClocksJump(t *testing.T) {
	now := int(time.Now().Unix())
	jumping, jumps := residents, []int{hour, 0, -hour, 0, -now, 0}
	if !*full {
		jumping, jumps = []resident{plant}, []int{hour, 0, -hour, 0}
	}
	m := newShiftedMachine(t, jumping)
	m.carries(t)
	m.serve()
	for _, r := range jumping {
		for _, jump := range jumps {
			t.Run(fmt.Sprintf("%s %+d s", r.folder, jump), func(t *testing.T) {
				beat := m.beat(t)
				m.shift(r, jump)
				beat.pass(t, time.Second)
				await.Until(t, "the forward carries", m.echo)
				beat.end(t)
			})
		}
	}
	if n := strings.Count(m.ask("audit", "--wide"), "renewed"); n > 0 {
		t.Errorf("%d certificates were renewed:\n%s", n, m.ask("audit", "--wide"))
	}
	if *full {
		m.tenYearsAhead(t)
	}
}

// tenYearsAhead lets the clocks of server, relay and portal jump over the end of all that counts.
func (m *machine) tenYearsAhead(t *testing.T) {
	t.Helper()
	// Ten years ahead the stamps of the grants have ended, and so have the certificates: what a portal carries ends by its
	// new clock, within a minute, and it says why. Server and relay have no part in what runs.
	beat := m.beat(t)
	for _, name := range []resident{residents[0], residents[1]} {
		m.shift(name, decade)
	}
	beat.pass(t, 3*time.Second)
	for _, name := range []resident{residents[0], residents[1]} {
		m.shift(name, 0)
	}
	beat.pass(t, time.Second)
	m.shift(plant, decade)
	select {
	case <-beat.done:
	case <-time.After(90 * time.Second):
		t.Error("what was carried goes on, though its grant has ended by the new clock")
	}
	beat.c.Close()
	m.shift(plant, 0)
	await.Within(t, "the forward carries again", 2*time.Minute, m.echo)
}

// beat is a connection over the forward that is asked again and again.
type beat struct {
	c    net.Conn
	most time.Duration // that an answer took; valid after done
	done chan error
	stop chan struct{}
}

// beat opens a connection over the forward, which is asked 50 times a second.
func (m *machine) beat(t *testing.T) *beat {
	t.Helper()
	var c net.Conn
	await.Until(t, "a connection", func() (err error) {
		c, err = net.Dial("tcp", m.entry)
		if err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write([]byte{1})
			_, err = c.Read(make([]byte, 1))
		}
		return err
	})
	b := &beat{c: c, done: make(chan error, 1), stop: make(chan struct{})}
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-b.stop:
				b.done <- nil
				return
			case <-tick.C:
			}
			at := time.Now()
			c.SetDeadline(at.Add(30 * time.Second))
			if _, err := c.Write([]byte{1}); err != nil {
				b.done <- err
				return
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				b.done <- err
				return
			}
			b.most = max(b.most, time.Since(at))
		}
	}()
	return b
}

// pass lets time pass, in which the connection must not end.
func (b *beat) pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case err := <-b.done:
		t.Fatalf("what was carried ended: %v", err)
	case <-time.After(d):
	}
}

func (b *beat) end(t *testing.T) {
	t.Helper()
	close(b.stop)
	if err := await.Receive(t, "the end of what asks again and again", b.done); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("what was carried ended: %v", err)
	}
	b.c.Close()
	t.Logf("stood still for %v", b.most)
	if b.most > 3*time.Second { // on a busy machine; it is milliseconds else
		t.Errorf("what is carried stood still for %v", b.most)
	}
}

func (m *machine) shiftFile(r resident) string { return filepath.Join(m.dir, "shift-"+r.folder) }

// shift sets the clock of a daemon ahead by so many seconds.
func (m *machine) shift(r resident, seconds int) {
	m.t.Helper()
	if err := os.WriteFile(m.shiftFile(r)+".new", []byte(strconv.Itoa(seconds)), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(m.shiftFile(r)+".new", m.shiftFile(r)); err != nil {
		m.t.Fatal(err)
	}
}

// newShiftedMachine is newMachine, some daemons of which follow files with their clocks.
func newShiftedMachine(t *testing.T, shifted []resident) *machine {
	t.Helper()
	stage.EnterIdle(t) // until the programs are built it does nothing
	programs := make(map[string][]byte)
	for _, r := range shifted {
		programs[r.role] = shiftedProgram(t, r.role)
	}
	m := newMachine(t, nil)
	for _, r := range shifted {
		m.running[r.folder].stop()
		m.shift(r, 0)
	}
	for role, program := range programs {
		m.install(role, program)
	}
	for _, r := range shifted {
		m.environment = []string{"SHIFT_CLOCK=" + m.shiftFile(r)}
		m.launchOf(r)
		m.waitReady(r)
	}
	m.environment = nil
	return m
}
