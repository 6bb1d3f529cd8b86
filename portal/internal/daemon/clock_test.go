package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPortalsWithAClockBehindWorkTogether has a world that is two days ahead of the
// portals' clock: their certificates and grants begin tomorrow. They learn the time
// from the server, and judge each other, grants and all by it (T24).
func TestPortalsWithAClockBehindWorkTogether(t *testing.T) {
	w := newWorldAt(t, func() time.Time { return time.Now().Add(48 * time.Hour) })
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, p := range []*testPortal{ann, factory} {
		if off := p.Status().Identity.Clock; (off + 48*time.Hour).Abs() > 5*time.Second {
			t.Errorf("%s says that its clock is %v ahead", p.name, off)
		}
		if s := p.Status(); s.Forwards[0].State != Up {
			t.Errorf("%s: %+v", p.name, s.Forwards[0])
		}
	}
}

// TestPortalWithAClockFarAheadSaysSo has a world in which it is ten years ago: what
// is valid there has expired by the portal's clock, which is not set back.
func TestPortalWithAClockFarAheadSaysSo(t *testing.T) {
	w := newWorldAt(t, func() time.Time { return time.Now().AddDate(-10, 0, 0) })
	var log text
	w.log = slog.New(slog.NewTextHandler(&log, nil))
	p := w.portal("ann", "")
	w.wait("the refusal", func() bool { return strings.Contains(log.String(), "after its end: renew it or set the clock") })
	if s := p.Status(); s.Server.Connected {
		t.Error("it is connected")
	}
}

// text is a buffer for several goroutines.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
