package entry

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

func ranked(exit string, rank uint8, version uint64) grant.Grant {
	return grant.Grant{Permission: grant.Permission{
		Forward: "web", Rank: rank, Version: version,
		Listen: endpoint.MustParse("tcp://127.0.0.1:1"), Target: endpoint.MustParse("tcp://127.0.0.1:1"),
		Entry: grant.Party{Name: "ann"}, Exit: grant.Party{Name: exit},
	}}
}

func names(list []choice) string {
	var all []string
	for _, c := range list {
		all = append(all, c.Exit.Name)
	}
	return strings.Join(all, " ")
}

// TestOrderOfTargets: by rank, the newer of one rank first, those that are away or
// have failed a moment ago last.
func TestOrderOfTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := make(map[string]bool)
		e := newEntry(noTunnels{})
		defer e.stop()
		e.Reach = func(peer string) bool { return !away[peer] }
		f := newForward(e, ranked("third", 2, 1))
		for _, g := range []grant.Grant{ranked("first", 0, 1), ranked("second", 1, 1)} {
			f.grant(g)
		}
		want := func(what, order string) {
			t.Helper()
			if got := names(f.order(netip.Addr{})); got != order {
				t.Errorf("%s: %s, want %s", what, got, order)
			}
			for _, s := range f.states() {
				if s.InUse != strings.HasPrefix(order, s.Grant.Exit.Name) || s.Targets != len(f.targets) {
					t.Errorf("%s: %s in use %t of %d", what, s.Grant.Exit.Name, s.InUse, s.Targets)
				}
			}
		}
		want("all there", "first second third")
		away["first"] = true
		want("the first away", "second third first")
		fail := func(name string, err error, took time.Duration) {
			for _, c := range f.order(netip.Addr{}) {
				if c.Exit.Name == name {
					f.pass(c, time.Now().Add(-took), err)
				}
			}
		}
		refused := &tunnel.EndError{Peer: true, Reason: wire.ReasonTargetRefused}
		fail("second", refused, 10*time.Millisecond)
		want("and the second's target refuses", "third first second")
		away["first"] = false
		time.Sleep(leastRest)
		want("a moment later", "first second third")
		fail("first", &tunnel.EndError{Peer: true, Reason: wire.ReasonTargetTimeout}, 10*time.Second)
		time.Sleep(29 * time.Second)
		want("half a minute after a timeout of 10 s", "second third first")
		time.Sleep(2 * time.Second)
		want("and then", "first second third")
		for _, err := range []error{
			&tunnel.EndError{Peer: true, Reason: wire.ReasonNotGranted}, &tunnel.EndError{Peer: true, Reason: wire.ReasonLimit},
			&tunnel.EndError{Peer: true, Reason: wire.ReasonLocalList}, &tunnel.EndError{Reason: wire.ReasonShutdown},
			&peers.Unavailable{Reason: wire.ReasonShutdown}, errors.New("something else"), nil,
		} {
			fail("first", err, 0)
		}
		want("what is not about the target", "first second third")
		f.grant(ranked("newer", 0, 2))
		want("a newer policy's", "newer first second third")
		if f.revoke(ranked("first", 0, 1)) || f.revoke(ranked("second", 1, 1)) || f.revoke(ranked("third", 2, 1)) || !f.revoke(ranked("newer", 0, 2)) {
			t.Error("the last target is another")
		}
	})
}

// TestClientsInIPv6ClothesAreTheSame as those without, at listeners and in grants.
func TestClientsInIPv6ClothesAreTheSame(t *testing.T) {
	clients, err := grant.NewClients([]netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("2001:db8::/32")})
	if err != nil {
		t.Fatal(err)
	}
	e := newEntry(noTunnels{})
	defer e.stop()
	g := ranked("factory", 0, 1)
	g.Clients = clients
	f := newForward(e, g)
	for text, want := range map[string]int{
		"192.168.7.9": 1, "::ffff:192.168.7.9": 1, "192.168.8.9": 0, "::ffff:192.168.8.9": 0, "2001:db8:1::1": 1, "2001:db9::1": 0, "fe80::1%eth0": 0,
	} {
		if got := len(f.order(netip.MustParseAddr(text))); got != want {
			t.Errorf("%s: %d targets, want %d", text, got, want)
		}
	}
	if len(f.order(netip.Addr{})) != 0 {
		t.Error("a client without an address is one of them")
	}
}
