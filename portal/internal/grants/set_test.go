package grants

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var (
	policyKey = key(1)
	stampKey  = key(2)
)

func stamps() []ed25519.PublicKey { return []ed25519.PublicKey{public(stampKey)} }

func party(name string) grant.Party {
	return grant.Party{Name: name, Key: identity.KeyHash{name[0], 7}}
}

func peer(name string) identity.Peer {
	id, err := identity.New("example.org", identity.Portal, name)
	if err != nil {
		panic(err)
	}
	return identity.Peer{ID: id, Key: party(name).Key}
}

func permission(version uint64, forward, entry, exit string) grant.Permission {
	return grant.Permission{
		Version: version, Forward: forward,
		Entry: party(entry), Listen: endpoint.MustParse("tcp://127.0.0.1:8080"),
		Exit: party(exit), Target: endpoint.MustParse("tcp://10.0.0.5:80"),
	}
}

func sign(p grant.Permission, at time.Time) grant.Grant {
	return grant.Sign(p, policyKey).Stamp(stampKey, at)
}

// world is a Set under test with a clock of its own.
type world struct {
	*testing.T
	set *Set
	now time.Time
}

func newWorld(t *testing.T, self string) *world {
	w := &world{t, NewSet(peer(self), public(policyKey)), start}
	w.set.Connected([]ed25519.PublicKey{public(stampKey)})
	return w
}

// complete says that a version is, which the policy key has signed.
func (w *world) complete(version uint64) []Change {
	changes, _ := w.set.Complete(w.now, wire.GrantsComplete{Version: version}.Sign(policyKey))
	return changes
}

func (w *world) put(g grant.Grant) []Change {
	w.Helper()
	changes, err := w.set.Put(w.now, g.AppendTo(nil))
	if err != nil {
		w.Fatal(err)
	}
	return changes
}

func (w *world) want(what string, got []Change, kinds ...Kind) Change {
	w.Helper()
	var have []Kind
	for _, c := range got {
		have = append(have, c.Kind)
	}
	if !slices.Equal(have, kinds) {
		w.Fatalf("%s: changes %v, want %v", what, have, kinds)
	}
	if len(got) == 0 {
		return Change{}
	}
	return got[0]
}

func (w *world) admit(from string, g grant.Grant, shown bool) wire.Reason {
	w.Helper()
	var signed []byte
	if shown {
		signed = g.AppendTo(nil)
	}
	_, err := w.set.Admit(w.now, peer(from), g.ID(), signed)
	if err == nil {
		return wire.ReasonNone
	}
	var r *Refused
	if !errors.As(err, &r) {
		w.Fatalf("error of type %T: %v", err, err)
	}
	return r.Reason
}

func (w *world) wantAdmit(what, from string, g grant.Grant, shown bool, want wire.Reason) {
	w.Helper()
	if got := w.admit(from, g, shown); got != want {
		w.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestGrantBeginsAndRemovalEndsIt(t *testing.T) {
	w := newWorld(t, "exit")
	g := sign(permission(1, "web", "ann", "exit"), w.now)
	w.want("put", w.put(g), Begin)
	w.want("the same again", w.put(g))
	w.wantAdmit("its entry", "ann", g, false, wire.ReasonNone)
	w.want("remove", w.set.Remove(w.now, g.ID(), wire.ReasonNone))
	w.wantAdmit("removed", "ann", g, true, wire.ReasonGrantRemoved)
	end := w.want("complete", w.complete(2), End)
	if end.Reason != wire.ReasonGrantRemoved || !slices.Equal(end.IDs, []wire.GrantID{g.ID()}) {
		t.Errorf("end: %v of %v", end.Reason, end.IDs)
	}
	w.want("remove again", w.set.Remove(w.now, g.ID(), wire.ReasonNone))
	w.wantAdmit("removed, id alone", "ann", g, false, wire.ReasonNotGranted)
	w.wantAdmit("removed, shown", "ann", g, true, wire.ReasonGrantRemoved)
}

func TestRemovedGrantEndsWithoutAWordFromTheServer(t *testing.T) {
	w := newWorld(t, "exit")
	g := sign(permission(1, "web", "ann", "exit"), w.now)
	w.put(g)
	w.want("remove", w.set.Remove(w.now, g.ID(), wire.ReasonGrantExpired))
	changes, next := w.set.Tick(w.now)
	w.want("at once", changes)
	if want := start.Add(moveTime); !next.Equal(want) {
		t.Fatalf("next tick at %v, want %v", next, want)
	}
	changes, _ = w.set.Tick(next)
	if end := w.want("a moment later", changes, End); end.Reason != wire.ReasonGrantExpired {
		t.Errorf("reason %v", end.Reason)
	}
}

func TestRemovalWithANewGrantBehindItMoves(t *testing.T) {
	w := newWorld(t, "exit")
	old := sign(permission(1, "web", "ann", "exit"), w.now)
	renamed := sign(permission(2, "renamed", "ann", "exit"), w.now)
	w.put(old)
	w.want("remove", w.set.Remove(w.now, old.ID(), wire.ReasonNone))
	w.want("put", w.put(renamed), Renew)
	w.want("complete", w.complete(2))
	w.wantAdmit("the new one", "ann", renamed, false, wire.ReasonNone)
}

func TestStampEndsGrantAndFreshStampRenewsIt(t *testing.T) {
	w := newWorld(t, "exit")
	p := permission(1, "web", "ann", "exit")
	w.put(sign(p, w.now))
	_, next := w.set.Tick(w.now)
	if want := start.Add(grant.StampLife); !next.Equal(want) {
		t.Fatalf("next tick at %v, want %v", next, want)
	}
	w.now = w.now.Add(12 * time.Hour)
	w.want("fresh stamp", w.put(sign(p, w.now)), Renew)
	w.now = next
	changes, next := w.set.Tick(w.now)
	w.want("first stamp over", changes)
	w.now = next
	w.wantAdmit("at the very end, before the tick", "ann", sign(p, start), false, wire.ReasonGrantExpired)
	changes, _ = w.set.Tick(w.now)
	if end := w.want("second stamp over", changes, End); end.Reason != wire.ReasonGrantExpired {
		t.Errorf("reason %v", end.Reason)
	}
	fresh := sign(p, w.now)
	w.wantAdmit("id alone", "ann", fresh, false, wire.ReasonGrantExpired)
	w.wantAdmit("with a fresher stamp", "ann", fresh, true, wire.ReasonNone)
}

func TestPermissionEndsBeforeItsStamp(t *testing.T) {
	w := newWorld(t, "ann")
	p := permission(1, "web", "ann", "exit")
	p.End = start.Add(time.Hour)
	w.want("put", w.put(sign(p, w.now)), Begin)
	_, next := w.set.Tick(w.now)
	if !next.Equal(p.End) {
		t.Fatalf("next tick at %v, want %v", next, p.End)
	}
	w.now = next
	changes, _ := w.set.Tick(w.now)
	w.want("at its end", changes, End)
}

func TestGrantOfTheFutureWaits(t *testing.T) {
	w := newWorld(t, "ann")
	w.want("stamped for tomorrow", w.put(sign(permission(1, "web", "ann", "exit"), w.now.Add(24*time.Hour))))
	_, next := w.set.Tick(w.now)
	w.now = next
	changes, _ := w.set.Tick(w.now)
	w.want("tomorrow", changes, Begin)
}

func TestSamePairMovesAndDoesNotCut(t *testing.T) {
	w := newWorld(t, "exit")
	old := sign(permission(1, "web", "ann", "exit"), w.now)
	p := permission(2, "renamed", "ann", "exit")
	p.End = start.Add(time.Hour)
	renamed := sign(p, w.now)
	w.want("first", w.put(old), Begin)
	// The newer policy's word counts, though it lasts shorter.
	c := w.want("second", w.put(renamed), Renew)
	if c.Grant.Forward != "renamed" || c.Before != old || len(c.IDs) != 2 {
		t.Errorf("goes on under %q instead of %q, with the ids %v", c.Grant.Forward, c.Before.Forward, c.IDs)
	}
	w.want("remove the first", w.set.Remove(w.now, old.ID(), wire.ReasonNone))
	w.complete(2)
	w.wantAdmit("an entry that is behind", "ann", old, false, wire.ReasonNone)
	w.want("remove the second", w.set.Remove(w.now, renamed.ID(), wire.ReasonNone))
	end := w.want("complete", w.complete(3), End)
	if len(end.IDs) != 2 {
		t.Errorf("cut the ids %v, want both", end.IDs)
	}
	w.wantAdmit("the first, now that all is gone", "ann", old, true, wire.ReasonGrantRemoved)
}

func TestReconnectKeepsUntilComplete(t *testing.T) {
	w := newWorld(t, "exit")
	kept := sign(permission(1, "kept", "ann", "exit"), w.now)
	p := permission(1, "gone", "bo", "exit")
	gone := sign(p, w.now)
	w.put(kept)
	w.put(gone)
	w.want("complete", w.complete(1))

	w.set.Connected([]ed25519.PublicKey{public(stampKey)})
	w.want("put again", w.put(kept))
	w.wantAdmit("before complete", "bo", gone, false, wire.ReasonNone)
	end := w.want("complete", w.complete(2), End)
	if end.Grant.Forward != "gone" {
		t.Errorf("ended %q", end.Grant.Forward)
	}
	w.wantAdmit("kept", "ann", kept, false, wire.ReasonNone)
}

func TestEntryAheadOfItsExit(t *testing.T) {
	w := newWorld(t, "exit")
	early := sign(permission(3, "web", "ann", "exit"), w.now)
	w.wantAdmit("before anything is complete", "ann", early, true, wire.ReasonGrantRemoved)
	w.complete(2)
	w.wantAdmit("id alone", "ann", early, false, wire.ReasonNotGranted)
	w.wantAdmit("shown", "ann", early, true, wire.ReasonNone)
	w.wantAdmit("id alone, once shown", "ann", early, false, wire.ReasonNone)

	second := sign(permission(4, "second", "bo", "exit"), w.now)
	w.wantAdmit("of a later version", "bo", second, true, wire.ReasonNone)
	end := w.want("a version without the first", w.complete(3), End)
	if end.Grant.Forward != "web" {
		t.Errorf("ended %q", end.Grant.Forward)
	}
	w.wantAdmit("the first", "ann", early, true, wire.ReasonGrantRemoved)
	w.wantAdmit("the later one", "bo", second, false, wire.ReasonNone)

	w.put(second)
	w.want("taken back before its version is complete", w.set.Remove(w.now, second.ID(), wire.ReasonNone))
	changes, _ := w.set.Tick(w.now.Add(moveTime))
	w.want("a moment later", changes, End)
	w.wantAdmit("taken back", "bo", second, true, wire.ReasonGrantRemoved)
}

func TestForeignAndForgedGrantsAreRefused(t *testing.T) {
	w := newWorld(t, "exit")
	w.complete(0)
	mine := sign(permission(1, "web", "ann", "exit"), w.now)
	w.put(mine)

	otherPolicy := grant.Sign(permission(1, "a", "ann", "exit"), key(9)).Stamp(stampKey, w.now)
	otherStamp := grant.Sign(permission(1, "b", "ann", "exit"), policyKey).Stamp(key(9), w.now)
	altered := sign(permission(1, "c", "ann", "exit"), w.now)
	altered.Target = endpoint.MustParse("tcp://10.0.0.6:22")
	for name, g := range map[string]grant.Grant{"policy": otherPolicy, "stamp": otherStamp, "altered": altered} {
		w.wantAdmit(name, "ann", g, true, wire.ReasonBadSignature)
		if _, err := w.set.Put(w.now, g.AppendTo(nil)); err == nil || !strings.Contains(err.Error(), "bad signature") {
			t.Errorf("put %s: %v", name, err)
		}
	}
	w.wantAdmit("bo with ann's id", "bo", mine, false, wire.ReasonNotGranted)
	w.wantAdmit("bo with ann's grant", "bo", mine, true, wire.ReasonNotGranted)
	elsewhere := sign(permission(1, "e", "ann", "factory"), w.now)
	w.wantAdmit("for another exit", "ann", elsewhere, true, wire.ReasonNotGranted)
	if _, err := w.set.Put(w.now, elsewhere.AppendTo(nil)); err == nil {
		t.Error("took a grant that does not concern it")
	}
	rekeyed := permission(1, "f", "ann", "exit")
	rekeyed.Exit.Key[5] = 1
	w.wantAdmit("for a former key of this portal", "ann", sign(rekeyed, w.now), true, wire.ReasonNotGranted)
	rekeyed = permission(1, "g", "ann", "exit")
	rekeyed.Entry.Key[5] = 1
	rekeyed.Target = endpoint.MustParse("tcp://10.0.0.6:22")
	w.wantAdmit("for another key of the peer", "ann", sign(rekeyed, w.now), true, wire.ReasonNotGranted)
	asServer := peer("ann")
	asServer.ID.Role = identity.Server
	if _, err := w.set.Admit(w.now, asServer, mine.ID(), nil); err == nil {
		t.Error("admitted a server as an entry portal")
	}
	// An id of one grant, the bytes of another.
	if _, err := w.set.Admit(w.now, peer("ann"), wire.GrantID{1}, mine.AppendTo(nil)); err == nil {
		t.Error("took a grant under another id")
	}
	if _, err := w.set.Admit(w.now, peer("ann"), wire.GrantID{1}, []byte{1, 2, 3}); err == nil {
		t.Error("took garbage")
	}
	old := sign(permission(1, "h", "ann", "exit"), w.now.Add(-48*time.Hour))
	w.wantAdmit("expired", "ann", old, true, wire.ReasonGrantExpired)
}
