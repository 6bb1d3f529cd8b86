package direct

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/netport/netport/portal/internal/path"
	"github.com/netport/netport/portal/internal/portmap"
	"github.com/netport/netport/proto/wire"
)

// A portal has the ports mapped at which it can be reached, for as long as some tunnel
// looks for direct ways, and tells the peer where that is.
func TestPortsAreMappedWhileATunnelLooks(t *testing.T) {
	asked := make(chan []portmap.Port, 100)
	paths := path.NewFinder(path.Config{Log: slog.New(slog.DiscardHandler)})
	f := New(Config{Paths: paths, Map: func(p []portmap.Port) { asked <- p }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		paths.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	wanted := func(what string, is func([]portmap.Port) bool) (got []portmap.Port) {
		t.Helper()
		for deadline := time.After(10 * time.Second); ; {
			select {
			case got = <-asked:
				if is(got) {
					return got
				}
			case <-deadline:
				t.Fatalf("%s are not wanted, but %v", what, got)
			}
		}
	}
	offers := make(chan []wire.Candidate, 100)
	p := f.Open(Tunnel{Peer: "peer", Client: true, Keys: keys, QUIC: &quic.Config{}, Offer: func(list []wire.Candidate) { offers <- list }})
	p.Here()
	ports := wanted("two ports", func(p []portmap.Port) bool { return len(p) == 2 })
	if ports[0].Transport != wire.CandidateUDP || ports[0].Number != f.ports[false].Local() || ports[1].Transport != wire.CandidateTCP {
		t.Errorf("wanted = %v", ports)
	}
	mapped := wire.Candidate{Transport: wire.CandidateUDP, Origin: wire.OriginMapped, Addr: netip.MustParseAddrPort("20.0.1.1:4000")}
	f.Source(func() []wire.Candidate { return []wire.Candidate{mapped} })
	for deadline := time.After(10 * time.Second); ; {
		select {
		case list := <-offers:
			if !slices.Contains(list, mapped) {
				continue
			}
		case <-deadline:
			t.Fatal("the peer is not told of the mapping")
		}
		break
	}
	p.Close()
	wanted("none", func(p []portmap.Port) bool { return len(p) == 0 })
}
