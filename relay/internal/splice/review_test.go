package splice

import (
	"net"
	"testing"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/identity/identitytest"
)

// TestRevokedPortalsLegsAreDropped has two legs of a portal that is revoked, one
// joined and one that waits, and a pair of two others.
func TestRevokedPortalsLegsAreDropped(t *testing.T) {
	ca := identitytest.New(t)
	relay := ca.Credentials(identity.Relay, "relay-1")
	g := newRig(t, relay.ServerTLS(identity.ProtocolRelay, identity.Expect(identity.Portal, "")), func(r *Relay) { r.cfg.Recheck = relay.Recheck })
	m := g.session()
	thief, good, other := ca.Credentials(identity.Portal, "thief"), ca.Credentials(identity.Portal, "good"), ca.Credentials(identity.Portal, "other")
	join := func(connection uint16, a, b *identity.Credentials) (net.Conn, net.Conn) {
		x, y := g.dialTLS(a, m.preface(0, connection)), g.dialTLS(b, m.preface(1, connection))
		x.Write([]byte("x"))
		g.wantRead("first byte", y, []byte("x"))
		return x, y
	}
	cut, cutToo := join(0, thief, other)
	x, y := join(1, good, other)
	waits := g.dialTLS(thief, m.preface(0, 2))
	g.await("the third leg waits", func() bool { return g.Waiting().Legs == 1 })

	if err := relay.Revocations().Add(identity.Revocation{Epoch: 1, Key: thief.Key()}); err != nil {
		t.Fatal(err)
	}
	g.Review()
	wantReset(t, "the leg of who was revoked", cut)
	wantReset(t, "the leg that it was joined with", cutToo)
	wantReset(t, "the leg that waited", waits)
	if n := g.Waiting().Legs; n != 0 {
		t.Errorf("%d legs wait, want none", n)
	}
	y.Write([]byte("y"))
	g.wantRead("what goes on between the others", x, []byte("y"))

	again := g.clientTLS(thief)
	again.Write(m.preface(0, 3)) // it may think that it is through, as TLS 1.3 has it
	if _, err := again.Read(make([]byte, 1)); err == nil {
		t.Error("a revoked portal came in again")
	}
}
