package grants

import (
	"testing"

	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/wire"
)

// TestWhatWasTakenBackStaysSoWithinItsVersion: a server without the policy key takes
// grants back without a new version, by a word or by not putting them again. None of
// them comes back before the policy key has signed it anew, also after a restart.
func TestWhatWasTakenBackStaysSoWithinItsVersion(t *testing.T) {
	w := newWorld(t, "exit")
	said, silent := sign(permission(3, "said", "ann", "exit"), w.now), sign(permission(3, "silent", "bo", "exit"), w.now)
	w.put(said)
	w.put(silent)
	w.complete(3)
	w.set.Remove(w.now, said.ID(), wire.ReasonNone)
	w.want("complete", w.complete(3), End)
	w.set.Connected(stamps())
	w.want("a connection that does not put the other", w.complete(3), End)
	for name, again := range map[string]*world{"the same portal": w, "after a restart": w.restart(w.set.Kept())} {
		again.set.Connected(stamps())
		for _, g := range []grant.Grant{said, silent} {
			if _, err := again.set.Put(w.now, g.AppendTo(nil)); reasonOf(err) != wire.ReasonGrantRemoved {
				t.Errorf("%s: %s again: %v", name, g.Forward, err)
			}
			again.wantAdmit(name+": shown", g.Entry.Name, g, true, wire.ReasonGrantRemoved)
			p := g.Permission
			p.Version = 4
			again.want(name+": signed anew", again.put(sign(p, w.now)), Begin)
		}
		again.complete(4)
		if len(again.set.removed) != 0 || again.set.completed.Version != 4 {
			t.Errorf("%s: %d are remembered, version %d", name, len(again.set.removed), again.set.completed.Version)
		}
		for _, r := range again.set.Refusals() {
			if r.Peer == "" {
				t.Errorf("%s: all was signed anew, and it is said still: %s", name, r.Text)
			}
		}
	}
}

// TestUnsignedVersionTakesAwayAndNothingElse: what a server has not put is gone, whatever
// version it tells of; the version itself does not count.
func TestUnsignedVersionTakesAwayAndNothingElse(t *testing.T) {
	w := newWorld(t, "exit")
	w.put(sign(permission(3, "web", "ann", "exit"), w.now))
	w.complete(3)
	w.set.Connected(stamps())
	foreign := wire.GrantsComplete{Version: 1 << 63}.Sign(stampKey)
	changes, err := w.set.Complete(w.now, foreign)
	w.want("a version of the server's own", changes, End)
	if reasonOf(err) != wire.ReasonBadSignature || w.set.completed.Version != 3 {
		t.Errorf("%v, and version %d counts", err, w.set.completed.Version)
	}
	w.want("the next signed one", w.put(sign(permission(4, "web", "ann", "exit"), w.now)), Begin)
	if w.complete(4); w.set.completed.Version != 4 || len(w.set.Refusals()) != 0 {
		t.Errorf("version %d, refusals %v", w.set.completed.Version, w.set.Refusals())
	}
	fresh := newWorld(t, "exit")
	if _, err := fresh.set.Complete(w.now, foreign); err == nil || fresh.set.complete {
		t.Error("a portal that is new takes an unsigned version")
	}
	if _, err := fresh.set.Complete(w.now, wire.GrantsComplete{}); err != nil || !fresh.set.complete {
		t.Errorf("before the first policy: %v", err)
	}
}
