package grants

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/netport/netport/proto/endpoint"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

var nextKey = identity.KeyHash{'n', 'e', 'w'}

// rekeyed is a permission that names another key of its entry.
func rekeyed(p grant.Permission) grant.Permission {
	p.Entry.Key = nextKey
	return p
}

func (w *world) admitKey(from string, key identity.KeyHash, g grant.Grant) wire.Reason {
	w.Helper()
	p := peer(from)
	p.Key = key
	_, err := w.set.Admit(w.now, p, g.ID(), g.AppendTo(nil))
	if err == nil {
		return wire.ReasonNone
	}
	r, ok := errors.AsType[*Refused](err)
	if !ok {
		w.Fatalf("error of type %T: %v", err, err)
	}
	return r.Reason
}

// TestNewKeyCutsNothing: a peer changes its key. The permission for the new one
// comes beside that for the old, both are admitted under either, and the old one
// is none any more when its permission is gone. The pair never ends.
func TestNewKeyCutsNothing(t *testing.T) {
	w := newWorld(t, "exit")
	old := sign(permission(1, "web", "ann", "exit"), w.now)
	w.want("put", w.put(old), Begin)
	w.complete(1)
	if got := w.admitKey("ann", nextKey, old); got != wire.ReasonNotGranted {
		t.Errorf("the new key before there is a permission for it: %v", got)
	}
	renewed := sign(rekeyed(permission(2, "web", "ann", "exit")), w.now)
	w.want("the permission for the new key", w.put(renewed), Renew)
	w.want("complete", w.complete(2))

	for _, g := range []grant.Grant{old, renewed} {
		for _, key := range []identity.KeyHash{party("ann").Key, nextKey} {
			if got := w.admitKey("ann", key, g); got != wire.ReasonNone {
				t.Errorf("key %v under the grant of version %d: %v", key, g.Version, got)
			}
			if named, joined := w.set.NamesAny(w.now, "ann", key); !named || !joined {
				t.Errorf("key %v: named %t, joined %t", key, named, joined)
			}
		}
	}
	if got := w.admitKey("ann", identity.KeyHash{3}, renewed); got != wire.ReasonNotGranted {
		t.Errorf("a third key: %v", got)
	}
	w.want("the old permission is removed", w.set.Remove(w.now, old.ID(), wire.ReasonNone), Renew)
	if got := w.admitKey("ann", party("ann").Key, renewed); got != wire.ReasonNotGranted {
		t.Errorf("the old key, when only the new one is named: %v", got)
	}
	if named, joined := w.set.NamesAny(w.now, "ann", party("ann").Key); named || !joined {
		t.Errorf("the old key: named %t, joined %t", named, joined)
	}
	if w.set.Names(w.now, renewed.ID(), "ann", party("ann").Key) || !w.set.Names(w.now, renewed.ID(), "ann", nextKey) || w.set.Names(w.now, renewed.ID(), "bo", nextKey) {
		t.Error("the pair names other keys than the valid grant")
	}
	if got := w.admitKey("ann", nextKey, renewed); got != wire.ReasonNone {
		t.Errorf("the new key: %v", got)
	}
}

// TestEntryWithANewKeyIsAheadOfItsExit: the entry shows the permission for its
// next key on a carrier of the old one, and then proves the next.
func TestEntryWithANewKeyIsAheadOfItsExit(t *testing.T) {
	w := newWorld(t, "exit")
	old := sign(permission(1, "web", "ann", "exit"), w.now)
	w.put(old)
	w.complete(1)
	renewed := sign(rekeyed(permission(2, "web", "ann", "exit")), w.now)
	if got := w.admitKey("ann", identity.KeyHash{3}, renewed); got != wire.ReasonNotGranted {
		t.Errorf("shown by a key that no grant names: %v", got)
	}
	if got := w.admitKey("ann", party("ann").Key, renewed); got != wire.ReasonNone {
		t.Errorf("shown by the old key: %v", got)
	}
	if got := w.admitKey("ann", nextKey, renewed); got != wire.ReasonNone {
		t.Errorf("then by the new one: %v", got)
	}
}

// TestOwnKeyChanges: this portal holds grants for both its keys, offers that for
// the one in use, and takes none for a third.
func TestOwnKeyChanges(t *testing.T) {
	w := newWorld(t, "ann")
	old := sign(permission(1, "web", "ann", "exit"), w.now)
	renewed := sign(rekeyed(permission(2, "web", "ann", "exit")), w.now)
	w.want("put", w.put(old), Begin)
	if _, err := w.set.Put(w.now, renewed.AppendTo(nil)); err == nil {
		t.Fatal("took a grant for a key that is not this portal's")
	}
	w.want("the next key", w.set.Own(w.now, party("ann").Key, nextKey))
	w.want("its permission", w.put(renewed)) // the one for the key in use goes on
	c := w.want("the next key is in use", w.set.Own(w.now, nextKey, party("ann").Key), Renew)
	if c.Grant.Entry.Key != nextKey || c.Before.Entry.Key != party("ann").Key {
		t.Errorf("goes on with the key %v, before %v", c.Grant.Entry.Key, c.Before.Entry.Key)
	}
	w.want("the old permission goes", w.set.Remove(w.now, old.ID(), wire.ReasonNone))
}

// TestOlderPolicyIsRefused: what a later version did not have comes back by no
// server, also after a restart, nor by one that says its version is lower.
func TestOlderPolicyIsRefused(t *testing.T) {
	w := newWorld(t, "exit")
	gone := sign(permission(3, "gone", "ann", "exit"), w.now)
	other := permission(3, "stays", "bo", "exit")
	stays := sign(other, w.now)
	w.put(gone)
	w.put(stays)
	w.complete(3)
	w.set.Remove(w.now, gone.ID(), wire.ReasonNone)
	w.want("complete", w.complete(5), End)
	for name, again := range map[string]*world{"the same portal": w, "after a restart": w.restart(w.set.Kept())} {
		again.set.Connected(stamps())
		if _, err := again.set.Put(w.now, gone.AppendTo(nil)); err == nil || reasonOf(err) != wire.ReasonGrantRemoved {
			t.Errorf("%s: an old grant again: %v", name, err)
		}
		again.put(stays)
		again.complete(2)
		if again.set.completed.Version != 5 {
			t.Errorf("%s: version %d counts after a lower one", name, again.set.completed.Version)
		}
		if _, err := again.set.Put(w.now, gone.AppendTo(nil)); err == nil {
			t.Errorf("%s: an old grant after a lower version", name)
		}
		again.wantAdmit(name+": shown", "ann", gone, true, wire.ReasonGrantRemoved)
		again.wantAdmit(name+": what stayed", "bo", stays, false, wire.ReasonNone)
		again.put(sign(permission(6, "anew", "ann", "exit"), w.now))
		var texts []string
		for _, r := range again.set.Refusals() {
			texts = append(texts, r.Forward)
		}
		if !slices.Contains(texts, "gone") || !slices.Contains(texts, "") {
			t.Errorf("%s: refusals %q, want the grant's and the lower version's", name, texts)
		}
	}
}

// TestVersionIsNotCompleteWithoutItsGrants: a portal whose policy key was wrong
// takes the same grants when it has the right one.
func TestVersionIsNotCompleteWithoutItsGrants(t *testing.T) {
	w := newWorld(t, "exit")
	w.set.policy = public(key(9))
	g := sign(permission(3, "web", "ann", "exit"), w.now)
	if _, err := w.set.Put(w.now, g.AppendTo(nil)); reasonOf(err) != wire.ReasonBadSignature {
		t.Fatal(err)
	}
	w.complete(5)
	w.set.policy = public(policyKey)
	w.set.Connected(stamps())
	w.want("with the right key", w.put(g), Begin)
	w.want("complete", w.complete(5))
	if w.set.completed.Version != 5 || len(w.set.Refusals()) != 0 {
		t.Errorf("version %d, refusals %v", w.set.completed.Version, w.set.Refusals())
	}
}

// TestRefusalsAreKeptAndBounded: one line for each grant and reason, however often
// it comes.
func TestRefusalsAreKeptAndBounded(t *testing.T) {
	w := newWorld(t, "exit")
	w.complete(1)
	altered := sign(permission(1, "altered", "ann", "exit"), w.now)
	altered.Target = endpoint.MustParse("tcp://10.0.0.6:22")
	foreign := permission(1, "foreign", "ann", "exit")
	foreign.Exit.Key = nextKey
	unsigned := grant.Sign(permission(1, "unsigned", "ann", "exit"), stampKey).Stamp(stampKey, w.now)
	for range 3 {
		w.set.Put(w.now, []byte{1})
		for _, g := range []grant.Grant{altered, unsigned, sign(foreign, w.now)} {
			w.set.Put(w.now, g.AppendTo(nil))
		}
		w.admit("bo", altered, true)
	}
	got := make(map[string]wire.Reason)
	for _, r := range w.set.Refusals() {
		got[r.Peer+"/"+r.Forward] = r.Reason
		if r.Text == "" || !r.At.Equal(w.now) {
			t.Errorf("%+v", r)
		}
	}
	want := map[string]wire.Reason{
		"/": wire.ReasonProtocol, "/altered": wire.ReasonBadSignature, "/unsigned": wire.ReasonBadSignature,
		"/foreign": wire.ReasonNotGranted, "bo/altered": wire.ReasonBadSignature,
	}
	if len(w.set.Refusals()) != len(want) {
		t.Errorf("%d refusals, want %d", len(w.set.Refusals()), len(want))
	}
	for k, r := range want {
		if got[k] != r {
			t.Errorf("%s: %v, want %v", k, got[k], r)
		}
	}
	for i := range 1000 {
		p := permission(1, "x", "ann", "exit")
		p.Listen = endpoint.MustParse("tcp://127.0.0.1:" + string(rune('1'+i%9)) + "080")
		p.End = start.Add(time.Duration(i) * time.Hour)
		g := grant.Sign(p, stampKey).Stamp(stampKey, w.now)
		w.set.Put(w.now, g.AppendTo(nil))
	}
	if n := len(w.set.Refusals()); n != maxRefusals {
		t.Errorf("%d refusals are kept", n)
	}
}

// TestVersionsBeginAnewWithAnotherPolicyKey: the same permissions, signed by it, are
// taken by a portal whose owner has pinned it; by one that has not they are not.
func TestVersionsBeginAnewWithAnotherPolicyKey(t *testing.T) {
	w := newWorld(t, "exit")
	p := permission(3, "web", "ann", "exit")
	w.put(sign(p, w.now))
	w.complete(5)
	again := &world{t, NewSet(peer("exit"), public(key(9))), w.now}
	again.set.Restore(again.now, w.set.Kept())
	again.set.Connected(stamps())
	again.want("signed by the new key", again.put(grant.Sign(p, key(9)).Stamp(stampKey, w.now)), Begin)
	if _, err := again.set.Put(again.now, sign(p, w.now).AppendTo(nil)); reasonOf(err) != wire.ReasonBadSignature {
		t.Errorf("signed by the old one: %v", err)
	}
}
