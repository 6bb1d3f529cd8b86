package keeper

import (
	"context"
	"errors"
)

// ErrWaits says that an operator has to sign the next certificate first, where the CA key
// is: it is to be asked for again.
var ErrWaits = errors.New("the next certificate waits for an operator's signature (netport-server ca pending)")

// RenewOnce renews the certificate over the enrolment protocol if that is due by its life,
// or has waited to be long enough (soon: the domain has another issuing authority). It is for a
// program that runs for a moment, in place of Run, and ends with Close.
func (k *Keeper) RenewOnce(ctx context.Context, soon bool) error {
	now, leaf := k.clock.Now(), k.credentials.Leaf()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	due := k.dueTime(now, leaf)
	if soon {
		due = leaf.NotBefore.Add(min(2*rushTime, life/5)) // it began up to an hour before it was made
	}
	if now.Before(due) {
		return nil
	}
	k.hasty = true
	err := k.attempt(ctx, true)
	k.mu.Lock()
	waits := !k.waits.IsZero()
	k.mu.Unlock()
	if err != nil && waits && ctx.Err() == nil {
		return ErrWaits
	}
	return err
}

// Expired reports whether the certificate has ended by the clock here.
func (k *Keeper) Expired() bool { return k.clock.Now().After(k.credentials.Leaf().NotAfter) }

// Close gives back what Open took, where Run is not called.
func (k *Keeper) Close() { k.revoked.close() }
