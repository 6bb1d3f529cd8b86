package daemon

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/leg"
	"github.com/netport/netport/proto/local"
	"github.com/netport/netport/proto/ticket"
	"github.com/netport/netport/proto/wire"

	"github.com/netport/netport/relay/internal/config"
)

// sharedPort gives the relay a shared TCP port that nobody else has.
func sharedPort(c *config.Config) { c.SharedTCP = ownPort(c) }

// meet dials the shared port with a leg of a ticket.
func (s *server) meet(key wire.Secret, id wire.SessionID, n uint8) net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.cfg.SharedTCP))))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	p := leg.NewMeeting(id, n, uint64(time.Now().UnixNano()))
	if _, err := c.Write(p.AppendTo(nil, ticket.Secret(key, id, n))); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// await waits until the status is as it should be.
func (s *server) await(what string, ok func(Status) bool) Status {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		var v Status
		err := local.Call(s.t.Context(), s.cfg.Socket, "status", nil, &v)
		if err == nil && ok(v) {
			return v
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not after %v: %s; status %+v, %v", patience, what, v, err)
		}
	}
}

// F12: portals meet while the server is away, at a relay that was restarted in
// that time too; and the server is told nothing of sessions that are not its own.
func TestTicketsMeetWhileTheServerIsAway(t *testing.T) {
	s := newServer(t, sharedPort)
	s.wantReady()
	key := wire.NewSecret()
	id := ticket.Session(key, "ann", "bo", time.Now().Add(time.Hour))
	s.send(wire.TicketKeys{Keys: []wire.Secret{wire.NewSecret(), key}})
	s.await("the keys are known", func(v Status) bool { return v.TicketKeys == 2 })
	s.hangUp()
	a := s.meet(key, id, 0)
	v := s.await("a leg waits", func(v Status) bool { return v.TicketLegs == 1 })
	if v.Waiting != 0 || v.Tickets != 1 || len(v.Sessions) != 1 || v.Sessions[0].Ticket.IsZero() || v.Sessions[0].Opener != "" {
		t.Errorf("status %+v", v)
	}
	b := s.meet(key, id, 1)
	carry(t, a, b, "forth")
	carry(t, b, a, "back")
	s.accept()
	s.wantReady() // and no session
	ordered := order("ann", "bo")
	s.create(ordered)
	carry(t, a, b, "while the server is back")

	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.want("the end of the ordered session alone", wire.SessionOver{ID: ordered.ID, Reason: wire.ReasonShutdown})
	if m, more := <-s.received; more {
		if _, load := m.(wire.RelayLoad); !load {
			t.Errorf("the server is told %+v", m)
		}
	}
	s.start()
	s.await("it runs again, with its keys", func(v Status) bool { return v.TicketKeys == 2 && !v.Connected })
	a, b = s.meet(key, id, 0), s.meet(key, id, 1)
	carry(t, a, b, "after the restart")
	s.accept()
	s.wantReady()
}

func TestTicketGivesWayToAnOrderedSession(t *testing.T) {
	s := newServer(t, func(c *config.Config) {
		sharedPort(c)
		c.Capacity = 4
	})
	s.next("what the relay offers")
	key := wire.NewSecret()
	s.send(wire.TicketKeys{Keys: []wire.Secret{key}})
	s.await("the keys are known", func(v Status) bool { return v.TicketKeys == 1 })
	c := s.meet(key, ticket.Session(key, "ann", "bo", time.Now().Add(time.Hour)), 0)
	s.await("a leg waits", func(v Status) bool { return v.TicketLegs == 1 })
	for _, opener := range []string{"a", "b", "c", "d"} {
		s.create(order(opener, "e"))
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the ticket's leg goes on")
	}
	if v := s.status(); v.Tickets != 0 || len(v.Sessions) != 4 {
		t.Errorf("status %+v", v)
	}
	s.wantRefused(order("f", "e"), wire.ReasonBusy)
}

func TestTicketKeysAreForTheRelayAlone(t *testing.T) {
	s := newServer(t, defaults)
	s.wantReady()
	keys := []wire.Secret{wire.NewSecret(), wire.NewSecret()}
	s.send(wire.TicketKeys{Keys: keys[:1]})
	s.send(wire.TicketKeys{Keys: keys})
	s.await("the keys are known", func(v Status) bool { return v.TicketKeys == 2 })
	if err := s.stop(); err != nil { // so they are written
		t.Fatal(err)
	}
	info, err := os.Stat(s.cfg.TicketKeys)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if got, err := readTicketKeys(s.cfg.TicketKeys); err != nil || !slices.Equal(got, keys) {
		t.Errorf("read %d keys, %v", len(got), err)
	}
}

func TestFilesThatAreNoTicketKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	line := strings.Repeat("a0", 32) + "\n"
	read := func(text string, mode fs.FileMode) ([]wire.Secret, error) {
		file := filepath.Join(dir, "keys")
		os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return readTicketKeys(file)
	}
	got, err := read(ticketHeader+line+line, 0o600)
	want := wire.Secret(bytes.Repeat([]byte{0xa0}, 32))
	if d := cmp.Diff([]wire.Secret{want, want}, got, cmp.Comparer(func(a, b wire.Secret) bool { return a == b })); err != nil || d != "" {
		t.Fatalf("%v, %s", err, d)
	}
	for what, text := range map[string]string{
		"empty":        "",
		"no keys":      ticketHeader,
		"cut":          ticketHeader + line + line[:40],
		"no last line": ticketHeader + line[:64],
		"a long line":  ticketHeader + line[:64] + "a0\n",
		"no digits":    ticketHeader + strings.Repeat("zz", 32) + "\n",
		"five":         ticketHeader + strings.Repeat(line, 5),
		"another form": "netport ticket keys 2\n" + line,
		"bare":         hex.EncodeToString(want[:]),
	} {
		if keys, err := read(text, 0o600); err == nil || keys != nil || strings.Contains(err.Error(), "a0a0") {
			t.Errorf("%s: %d keys, %v", what, len(keys), err)
		}
	}
	if _, err := read(ticketHeader+line, 0o640); err == nil || !strings.Contains(err.Error(), "mode 0640") {
		t.Errorf("readable by the group: %v", err)
	}
	if _, err := readTicketKeys(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
