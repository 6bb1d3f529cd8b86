package faults

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// refused waits for the answer that there is no session.
func (i *impostor) refused() wire.Refused {
	i.w.t.Helper()
	m, err := wire.ParseRefused(i.next(wire.TypeRefused))
	if err != nil {
		i.w.t.Fatal(err)
	}
	return m
}

// T7: a portal that asks for others with which it has nothing to do learns nothing of them, not even whether they exist.
func TestPortalLearnsNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	w.allow(w.echoes()...)
	mallory := w.join(w.lab.Public("mallory"), w.identity(identity.Portal, "mallory"))
	var answers []wire.Refused
	for _, peer := range []string{"factory", "no-such-portal", "relay", "mallory"} {
		mallory.send(wire.OpenSession{Request: 1, Peer: peer, Grant: wire.GrantID{1}, Transports: wire.TransportSplice})
		answers = append(answers, mallory.refused())
	}
	for _, answer := range answers {
		if diff := cmp.Diff(wire.Refused{Request: 1, Reason: wire.ReasonNotGranted}, answer); diff != "" {
			t.Errorf("the answer tells more (-want +got):\n%s", diff)
		}
	}
}

// T17: a request that is said twice makes one session.
func TestRepeatedRequestMakesOneSession(t *testing.T) {
	w := newNetwork(t)
	twice := w.lab.Public("twice")
	credentials := [2]*identity.Credentials{w.identity(identity.Portal, "twice"), w.identity(identity.Portal, "once")}
	w.Apply("[[forward]]\nname = \"pact\"\nfrom = \"twice tcp://127.0.0.1:9\"\nto = \"once tcp://127.0.0.1:9\"\n")
	asker, peer := w.join(twice, credentials[0]), w.join(twice, credentials[1])
	g := asker.granted()
	peer.granted()
	open := wire.OpenSession{Request: 7, Peer: "once", Grant: g.ID(), Transports: wire.TransportSplice}
	message := wire.AppendMessage(wire.AppendMessage(nil, open), open)
	if _, err := asker.conn.Write(message); err != nil {
		t.Fatal(err)
	}
	first := asker.session()
	if got := peer.session().ID; got != first.ID {
		t.Errorf("the portals have the sessions %v and %v", first.ID, got)
	}
	// What was asked of the relay, in all.
	if n := w.sessions(); n != 1 {
		t.Errorf("the server has %d sessions, want 1", n)
	}
	if n := len(w.relayStatus().Sessions); n != 1 {
		t.Errorf("the relay has %d sessions, want 1", n)
	}
}
