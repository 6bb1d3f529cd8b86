package path

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// outsideOf returns where a NAT's portal is seen.
func outsideOf(n *nat) netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return at(n.outside)
}

// A relay says where it sees a portal's socket: when it is asked to, and when a way over
// UDP is tried, though another has won before the leg was bound.
func TestRelaySaysWhereItSeesThePortal(t *testing.T) {
	p := newPortals(t)
	told := make(chan struct{}, 100)
	for _, f := range p.finders {
		f.Mirror(func() { told <- struct{}{} })
	}
	sees := func(i int) bool {
		list := p.finders[i].Mapped()
		return len(list) == 1 && list[0].Addr == outsideOf(p.nats[i]) && list[0].Relay == at(p.nats[i].inside) && time.Since(list[0].At) < time.Minute
	}
	p.finders[0].Look()
	eventually(t, "the relay says where it sees the first portal", func() bool { return sees(0) })
	lost, cancel := context.WithCancelCause(t.Context())
	another := errors.New("another way has won")
	cancel(another)
	if _, err := quicOf(p.legs[1].Ways(0)).Quic(lost, false, p.tls(1), &quic.Config{}); !errors.Is(err, another) {
		t.Errorf("a way that has lost: %v", err)
	}
	eventually(t, "the relay says where it sees the second portal", func() bool { return sees(1) })
	if len(told) != 2 {
		t.Errorf("told %d times of 2 addresses", len(told))
	}
	p.nats[0].rebind(t)
	p.finders[0].Look()
	eventually(t, "the relay says where it sees the first portal now", func() bool { return sees(0) })
	if len(told) != 3 {
		t.Errorf("told %d times of 3 addresses", len(told))
	}
}

// A leg that nobody needs any more is given back at once where nobody wants to know.
func TestLegIsHeldBoundOnlyForWhoWantsToKnow(t *testing.T) {
	p := newPortals(t)
	lost, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := quicOf(p.legs[0].Ways(0)).Quic(lost, false, p.tls(0), &quic.Config{}); err == nil {
		t.Error("a way that has lost has a connection")
	}
	p.legs[0].mu.Lock()
	defer p.legs[0].mu.Unlock()
	if p.legs[0].binding != nil {
		t.Error("the leg is still bound")
	}
}
