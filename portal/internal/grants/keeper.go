package grants

import (
	"context"
	"crypto/ed25519"
	"sync"
	"time"

	"github.com/netport/netport/portal/internal/state"
	"github.com/netport/netport/proto/grant"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// longest is how long a Keeper sleeps at most: a machine's clock may be set,
// and a machine may sleep, without its timers noticing.
const longest = time.Minute

// gather is how long a Keeper waits for more after something that may have
// moved the next end: a server sends its grants all at once.
const gather = 50 * time.Millisecond

// Keeper keeps a Set by the clock and applies its changes, one after the
// other. It is safe for concurrent use.
type Keeper struct {
	now   func() time.Time
	apply func(Change)
	nudge chan struct{} // capacity 1: the next end may have moved

	order sync.Mutex // held while changes are found and applied, so that they stay in order
	mu    sync.Mutex // guards the following; taken inside order
	set   *Set
}

// NewKeeper returns a Keeper of set. apply is called for each change; it may
// call Admit and Held, and nothing else of the Keeper.
func NewKeeper(set *Set, now func() time.Time, apply func(Change)) *Keeper {
	return &Keeper{now: now, apply: apply, nudge: make(chan struct{}, 1), set: set}
}

// Run ends and begins what time alone ends and begins, until ctx is cancelled.
func (k *Keeper) Run(ctx context.Context) error {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	for {
		var next time.Time
		k.change(func(now time.Time) (changes []Change) {
			changes, next = k.set.Tick(now)
			return changes
		})
		wait := longest
		if !next.IsZero() {
			wait = min(wait, next.Sub(k.now()))
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
			continue
		case <-k.nudge:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(gather)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Connected begins a new connection to a server.
func (k *Keeper) Connected(stamp []ed25519.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set.Connected(stamp)
}

// Put takes a grant that the server has sent.
func (k *Keeper) Put(encoded []byte) (err error) {
	k.change(func(now time.Time) (changes []Change) {
		changes, err = k.set.Put(now, encoded)
		return changes
	})
	return err
}

// Remove takes a grant back.
func (k *Keeper) Remove(id wire.GrantID, reason wire.Reason) {
	k.change(func(now time.Time) []Change { return k.set.Remove(now, id, reason) })
}

// Complete says that every grant of a policy version was put, and returns the version
// that counts then: the highest of which that was so; 0 if there is none. See
// Set.Complete for the error.
func (k *Keeper) Complete(m wire.GrantsComplete) (version uint64, err error) {
	k.change(func(now time.Time) (changes []Change) {
		changes, err = k.set.Complete(now, m)
		if k.set.complete {
			version = k.set.completed.Version
		}
		return changes
	})
	return version, err
}

// Admit decides about what a peer asks for; see Set.Admit.
func (k *Keeper) Admit(peer identity.Peer, id wire.GrantID, signed []byte) (grant.Grant, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g, err := k.set.Admit(k.now(), peer, id, signed)
	k.wakeLocked()
	return g, err
}

// Own sets the keys of this portal: the one that it proves itself with now, and
// those that it is about to, or did a moment ago.
func (k *Keeper) Own(keys ...identity.KeyHash) {
	k.change(func(now time.Time) []Change { return k.set.Own(now, keys...) })
}

// Names reports whether a valid grant of the pair of a grant names a key of
// another portal.
func (k *Keeper) Names(id wire.GrantID, peer string, key identity.KeyHash) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Names(k.now(), id, peer, key)
}

// NamesAny reports whether any valid grant names a key of another portal, and
// whether any grant joins the two at all.
func (k *Keeper) NamesAny(peer string, key identity.KeyHash) (named, joined bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.NamesAny(k.now(), peer, key)
}

// Refusals returns the last refusals, the newest first.
func (k *Keeper) Refusals() []Refusal {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Refusals()
}

// Restore takes what was kept when the portal was stopped, before it is connected
// to a server; see Set.Restore.
func (k *Keeper) Restore(kept state.Grants) {
	k.change(func(now time.Time) []Change { return k.set.Restore(now, kept) })
}

// Kept returns what is to be kept for the next start.
func (k *Keeper) Kept() state.Grants {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Kept()
}

// Peers returns the names of the portals with which a grant joins this one now.
func (k *Keeper) Peers() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Peers(k.now())
}

// Joined returns a grant that joins this portal with another now, in either
// direction.
func (k *Keeper) Joined(peer string) (wire.GrantID, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Joined(k.now(), peer)
}

// Secret returns a key that this portal has in common with another, with which a grant
// joins it now.
func (k *Keeper) Secret(peer string) ([32]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Secret(k.now(), peer)
}

// Paths returns by which paths what joins this portal with another may go now.
func (k *Keeper) Paths(peer string) grant.Direct {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Paths(k.now(), peer)
}

// Forwards returns a grant of each pair of ends: the one that counts now, or else
// one that may come to.
func (k *Keeper) Forwards() []grant.Grant {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Forwards()
}

// Held returns all grants, valid or not.
func (k *Keeper) Held() []grant.Grant {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set.Held()
}

func (k *Keeper) change(find func(now time.Time) []Change) {
	k.order.Lock()
	defer k.order.Unlock()
	k.mu.Lock()
	changes := find(k.now())
	k.wakeLocked()
	k.mu.Unlock()
	for _, c := range changes {
		k.apply(c)
	}
}

// wakeLocked has Run look again if the Set has times that it does not know.
func (k *Keeper) wakeLocked() {
	if !k.set.moved {
		return
	}
	k.set.moved = false
	select {
	case k.nudge <- struct{}{}:
	default:
	}
}
