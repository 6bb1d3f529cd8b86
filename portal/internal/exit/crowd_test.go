package exit

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/netport/netport/portal/internal/allow"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// silentNames is a name server that never answers.
type silentNames struct{ asked chan struct{} }

func (s silentNames) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestDeadTargetsLeavePlacesForOthers: more connections are opened to targets whose names
// nobody knows than a peer may have under way. The peer's other forward goes on.
func TestDeadTargetsLeavePlacesForOthers(t *testing.T) {
	const opened = 2 * maxOfPeer
	names := silentNames{make(chan struct{})}
	w := newWorld(t, allow.List{}, names)
	live := w.grant(target(t, drain))
	wantLive := func() {
		t.Helper()
		if _, err := w.openFor(t.Context(), wire.OpenStream, live); err != nil {
			t.Errorf("the forward whose target lives: %v", err)
		}
	}
	ctx, giveUp := context.WithCancel(t.Context())
	var opening sync.WaitGroup
	crowd := func(g grant.Grant) (waiting int) {
		busy := make(chan struct{})
		for range opened {
			opening.Go(func() {
				switch _, err := w.openFor(ctx, wire.OpenStream, g); {
				case reasonIs(err, wire.ReasonBusy):
					busy <- struct{}{}
				case !errors.Is(err, context.Canceled):
					t.Errorf("a name that nobody knows: %v", err)
				}
			})
		}
		for range opened {
			select {
			case <-names.asked:
				waiting++
			case <-busy:
			}
		}
		return waiting
	}
	if n := crowd(w.grant("tcp://dead.test:80")); n != maxOfPeer/2 {
		t.Errorf("%d dials of a dead target are under way, want %d", n, maxOfPeer/2)
	}
	wantLive()
	if n := crowd(w.grant("tcp://gone.test:80")); n != maxOfPeer/4 {
		t.Errorf("%d dials of a second one are under way, want %d", n, maxOfPeer/4)
	}
	wantLive()
	giveUp()
	opening.Wait()
	if c := &w.exit.dialing; c.all != 0 || len(c.peers) != 0 {
		t.Errorf("when all are over, %d dials of %d peers are counted", c.all, len(c.peers))
	}
}

// TestPeersLeavePlacesForOthers: as many as there are want what does not answer.
func TestPeersLeavePlacesForOthers(t *testing.T) {
	var c crowd
	fill := func(peer string) (leave []func()) {
		for _, target := range []string{"tcp://dead.test:80", "tcp://gone.test:80", "tcp://lost.test:80"} {
			for {
				l, err := c.enter(peer, target)
				if err != nil {
					break
				}
				leave = append(leave, l)
			}
		}
		return leave
	}
	var leave []func()
	for _, peer := range []string{"ann", "bo", "cy"} {
		leave = append(leave, fill(peer)...)
		l, err := c.enter(peer, "tcp://10.0.0.5:80")
		if err != nil {
			t.Errorf("%s: another target: %v", peer, err)
			continue
		}
		l()
	}
	l, err := c.enter("dee", "tcp://10.0.0.5:80")
	if err != nil {
		t.Fatalf("another peer, with %d dials under way: %v", c.all, err)
	}
	if c.all > maxDialing {
		t.Errorf("%d dials are under way, want %d at most", c.all, maxDialing)
	}
	for _, l := range append(leave, l) {
		l()
	}
	if c.all != 0 || len(c.peers) != 0 {
		t.Errorf("when all are over, %d dials of %d peers are counted", c.all, len(c.peers))
	}
}
