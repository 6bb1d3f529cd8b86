package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/peers"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// provenBy returns the keys that a portal's carriers to another were proven with.
func (p *testPortal) provenBy(peer string) (keys []identity.KeyHash) {
	for _, t := range p.pool.Status() {
		for _, w := range t.Ways {
			if t.Peer == peer {
				keys = append(keys, w.Key)
			}
		}
	}
	return keys
}

// rekey gives a portal a new key, as its server does: permissions for it come
// beside those for the old one, then its certificate, and then the old ones go.
func (p *testPortal) rekey(grants ...*grant.Grant) (old, next identity.KeyHash) {
	w := p.w
	w.Helper()
	cert, key := w.ca.Leaf(identity.Portal, p.name)
	old, next = p.credentials.Key(), identity.HashKey(cert)
	p.keeper.Own(old, next)
	w.mu.Lock()
	w.parties[p.name] = grant.Party{Name: p.name, Key: next}
	w.mu.Unlock()
	version := w.nextVersion()
	var before []grant.Grant
	for _, g := range grants {
		before = append(before, *g)
		renewed := g.Permission
		renewed.Version = version
		for _, side := range []*grant.Party{&renewed.Entry, &renewed.Exit} {
			if side.Name == p.name {
				side.Key = next
			}
		}
		*g = w.grant(renewed)
	}
	if err := p.credentials.Renew([]*x509.Certificate{cert}, key); err != nil {
		w.Fatal(err)
	}
	p.renewed(old)
	for _, g := range before {
		w.revoke(g)
	}
	return old, next
}

// TestNewKeysCutNothing: entry and exit change their keys, one after the other, while
// a connection runs; their carriers are made anew with them, and what comes then
// is carried too.
func TestNewKeysCutNothing(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	for _, c := range []struct{ changes, other *testPortal }{{ann, factory}, {factory, ann}} {
		old, next := c.changes.rekey(&g)
		w.wait("carriers proven with "+c.changes.name+"'s new key", func() bool {
			keys := c.other.provenBy(c.changes.name)
			for _, k := range keys {
				if k != next {
					return false
				}
			}
			return len(keys) > 0
		})
		if named, _ := c.other.keeper.NamesAny(c.changes.name, old); named {
			t.Errorf("%s's old key is still granted", c.changes.name)
		}
		if got, err := ask(conn, "again"); got != "again" {
			t.Fatalf("after %s has another key: %q, %v", c.changes.name, got, err)
		}
		fresh := w.dial("tcp", g.Listen.HostPort())
		if got, err := ask(fresh, "fresh"); got != "fresh" {
			t.Errorf("a new connection after %s has another key: %q, %v", c.changes.name, got, err)
		}
	}
}

// TestRevokedPortalIsCutAtOnce: what runs to it ends at the entry, which hears of
// the revocation, and it gets no tunnel any more.
func TestRevokedPortalIsCutAtOnce(t *testing.T) {
	w := newWorld(t)
	ann, factory, g := w.pair()
	conn := w.dial("tcp", g.Listen.HostPort())
	if got, err := ask(conn, "hello"); got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := ann.credentials.Revocations().Add(identity.Revocation{Epoch: 1, Key: factory.credentials.Key()}); err != nil {
		t.Fatal(err)
	}
	ann.pool.Review()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || isTimeout(err) {
		t.Errorf("what ran: %v, want a reset", err)
	}
	w.wait("no tunnel", func() bool { _, _, ok := ann.pool.Live("factory"); return !ok })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := ann.pool.Tunnel(ctx, "factory", g.ID()); err == nil {
		t.Error("there is a tunnel again")
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// TestTunnelIsNotForAKeyThatNoGrantNames: a portal of the right name, with a
// certificate that somebody else has got for it, carries nothing.
func TestTunnelIsNotForAKeyThatNoGrantNames(t *testing.T) {
	w := newWorld(t)
	ann, _, g := w.pair()
	factory := w.parties["factory"]
	w.hostile("factory", "ann") // with a key of its own
	w.mu.Lock()
	minted := w.parties["factory"].Key
	w.parties["factory"] = factory
	w.mu.Unlock()
	w.wait("a tunnel with it", func() bool { _, _, ok := ann.pool.Live("factory"); return ok })
	_, err := ann.pool.Tunnel(t.Context(), "factory", g.ID())
	none, ok := errors.AsType[*peers.Unavailable](err)
	if !ok || none.Reason != wire.ReasonWrongPeer || !strings.Contains(err.Error(), minted.String()) {
		t.Errorf("a tunnel with a minted factory of the key %v: %v", minted, err)
	}
	ann.wantConclusion("web", false, "has the key "+minted.String()+", which no grant", "It fails at factory: it has another key than the policy knows")
	if got, err := w.askFresh(g.Listen.HostPort()); err == nil {
		t.Errorf("a connection through it: %q", got)
	}
}
