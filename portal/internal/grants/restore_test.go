package grants

import (
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// restart returns the world of the same portal, started again without a server.
func (w *world) restart(kept state.Grants) *world {
	again := &world{w.T, NewSet(identity.Peer{ID: w.set.self, Key: w.set.own[0]}, public(policyKey)), w.now}
	again.set.Restore(again.now, kept)
	return again
}

func TestKeptGrantsHoldAsLongAsTheirStamps(t *testing.T) {
	w := newWorld(t, "exit")
	g := sign(permission(1, "web", "ann", "exit"), w.now)
	w.put(g)
	w.want("complete", w.complete(1))
	kept := w.set.Kept()

	again := &world{t, NewSet(peer("exit"), public(policyKey)), w.now.Add(time.Hour)}
	w.want("restored", again.set.Restore(again.now, kept), Begin)
	again.wantAdmit("its entry, by the id alone", "ann", g, false, wire.ReasonNone)
	again.wantAdmit("another", "bo", g, true, wire.ReasonNotGranted)
	if got := again.set.Peers(again.now); !slices.Equal(got, []string{"ann"}) {
		t.Errorf("joined with %q", got)
	}
	if id, ok := again.set.Joined(again.now, "ann"); !ok || id != g.ID() {
		t.Errorf("joined with ann by %v, %t", id, ok)
	}
	_, next := again.set.Tick(again.now)
	if !next.Equal(g.Ends()) {
		t.Errorf("ends at %v, want %v", next, g.Ends())
	}
	again.now = next
	changes, _ := again.set.Tick(again.now)
	w.want("when the stamp is over", changes, End)
	again.wantAdmit("then", "ann", g, true, wire.ReasonGrantExpired)
	if got := again.set.Peers(again.now); len(got) != 0 {
		t.Errorf("joined with %q then", got)
	}
	// A portal that was stopped meanwhile is no exception, nor one whose clock is
	// behind what the stamp says.
	for _, now := range []time.Time{g.Ends(), g.From.Add(-time.Second), start.AddDate(10, 0, 0), time.Unix(0, 0)} {
		again := &world{t, NewSet(peer("exit"), public(policyKey)), now}
		w.want("restored at "+now.String(), again.set.Restore(now, kept))
		again.wantAdmit("at "+now.String(), "ann", g, true, wire.ReasonGrantExpired)
	}
}

func TestKeptGrantsEndWithTheNextCompleteConnection(t *testing.T) {
	w := newWorld(t, "exit")
	stays, goes := sign(permission(1, "stays", "ann", "exit"), w.now), sign(permission(1, "goes", "bo", "exit"), w.now)
	w.put(stays)
	w.put(goes)
	w.complete(1)
	again := w.restart(w.set.Kept())
	again.set.Connected(again.set.stamp)
	w.want("put again", again.put(stays))
	again.wantAdmit("until it is complete", "bo", goes, false, wire.ReasonNone)
	if end := w.want("complete", again.complete(2), End); end.Grant.Forward != "goes" {
		t.Errorf("ended %q", end.Grant.Forward)
	}
}

// TestRestartForgetsNoRemoval: what was taken back stays so, whoever shows it.
func TestRestartForgetsNoRemoval(t *testing.T) {
	w := newWorld(t, "exit")
	old, later := sign(permission(1, "old", "ann", "exit"), w.now), sign(permission(5, "later", "ann", "exit"), w.now)
	w.put(old)
	w.complete(2)
	w.set.Remove(w.now, old.ID(), wire.ReasonNone)
	w.put(later)
	w.set.Remove(w.now, later.ID(), wire.ReasonNone)
	ahead := sign(permission(4, "ahead", "bo", "exit"), w.now)
	w.wantAdmit("an entry that is ahead", "bo", ahead, true, wire.ReasonNone)

	again := w.restart(w.set.Kept())
	again.wantAdmit("old", "ann", old, true, wire.ReasonGrantRemoved)
	again.wantAdmit("of a version to come", "ann", later, true, wire.ReasonGrantRemoved)
	again.wantAdmit("never put", "bo", ahead, false, wire.ReasonNotGranted)
	again.wantAdmit("never put, shown again", "bo", ahead, true, wire.ReasonNone)
}

// TestNothingIsWonByAlteringWhatIsKept: whatever byte has a bit flipped, and
// wherever a grant is cut, no more is admitted than was granted. (The file has a
// checksum too; this is what holds without it.)
func TestNothingIsWonByAlteringWhatIsKept(t *testing.T) {
	w := newWorld(t, "exit")
	g := sign(permission(1, "web", "ann", "exit"), w.now)
	w.put(g)
	w.complete(1)
	kept := w.set.Kept()
	check := func(what string, held []byte, stamp []byte) {
		t.Helper()
		altered := kept
		altered.Held = [][]byte{held}
		altered.Stamp = slices.Clone(kept.Stamp)
		altered.Stamp[0] = stamp
		s := NewSet(peer("exit"), public(policyKey))
		s.Restore(w.now, altered)
		for _, other := range s.Held() {
			if other != g {
				t.Errorf("%s: holds %+v", what, other.Permission)
			}
		}
		if _, err := s.Admit(w.now, peer("bo"), g.ID(), held); err == nil {
			t.Errorf("%s: admits another", what)
		}
		for _, at := range []time.Time{g.Ends(), g.Ends().Add(time.Hour)} {
			if _, err := s.Admit(at, peer("ann"), g.ID(), held); err == nil {
				t.Errorf("%s: admits after the stamp's end", what)
			}
		}
	}
	b := kept.Held[0]
	for i := range b {
		check("cut", b[:i], kept.Stamp[0])
		flipped := slices.Clone(b)
		flipped[i] ^= 1 << (i % 8)
		check("flipped", flipped, kept.Stamp[0])
	}
	for i := range kept.Stamp[0] {
		flipped := slices.Clone(kept.Stamp[0])
		flipped[i] ^= 0x10
		check("stamp key", b, flipped)
	}
}

// Both ends of two grants work out the same key, whichever came first, and none when the
// grants are over; other portals, and other grants, another.
func TestPartnersHaveAKeyInCommon(t *testing.T) {
	ann, exit := newWorld(t, "ann"), newWorld(t, "exit")
	web, dns := sign(permission(1, "web", "ann", "exit"), ann.now), sign(permission(1, "dns", "ann", "exit"), ann.now)
	other := sign(permission(1, "web", "bo", "exit"), ann.now)
	ann.put(web)
	ann.put(dns)
	exit.put(other)
	exit.put(dns)
	exit.put(web)
	one, ok := ann.set.Secret(ann.now, "exit")
	same, too := exit.set.Secret(exit.now, "ann")
	if !ok || !too || one != same || one == [32]byte{} {
		t.Errorf("%x, %t at one, %x, %t at the other", one, ok, same, too)
	}
	if bo, ok := exit.set.Secret(exit.now, "bo"); !ok || bo == one {
		t.Errorf("with another portal: %x, %t", bo, ok)
	}
	for peer, at := range map[string]time.Time{"nobody": exit.now, "ann": web.Ends()} {
		if key, ok := exit.set.Secret(at, peer); ok {
			t.Errorf("a key with %s: %x", peer, key)
		}
	}
}
