package keeper

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/netport/netport/proto/enrol"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// answerTime is how long a server may take to answer: it may ask a CA elsewhere.
	answerTime = 2 * time.Minute
	// lateTime bounds a renewal of what has expired, at all servers together, if it waits
	// for no operator.
	lateTime = 3 * time.Minute
	// longest is the longest time between two looks at the clock, which may be set.
	longest = time.Hour
	// firstPause is about how long after a renewal that failed it is tried again; the
	// pauses double up to lastPause, and are at most a tenth of what is left.
	firstPause, lastPause = 5 * time.Second, time.Hour
	// rushTime bounds how long a certificate stays that another than the issuing
	// authority has signed.
	rushTime = time.Hour
)

// request is one that a server has been asked.
type request struct {
	number uint32
	done   chan struct{} // closed when it is answered
	chain  [][]byte
	err    error
}

func (r *request) answer(chain [][]byte, err error) {
	select {
	case <-r.done:
	default:
		r.chain, r.err = chain, err
		close(r.done)
	}
}

// refusal is a RenewRefused.
type refusal struct {
	reason wire.Reason
	text   string
}

func (r *refusal) Error() string {
	if r.text == "" {
		return "the server refuses: " + r.reason.String()
	}
	return fmt.Sprintf("the server refuses: %s: %q", r.reason, r.text)
}

func (k *Keeper) answered(number uint32, chain [][]byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.request != nil && k.request.number == number:
		k.request.answer(chain, err)
	case err == nil && !k.waits.IsZero() && k.asked == number:
		k.arrived = chain
		k.poke()
	}
}

// awaitOperator takes that the next certificate waits for an operator.
func (k *Keeper) awaitOperator() {
	k.mu.Lock()
	first := k.waits.IsZero()
	if first {
		k.waits = k.clock.Now()
	}
	k.mu.Unlock()
	if first {
		k.Log.Info("the certificate is to be renewed: it waits until an operator has signed the next one", "until", k.credentials.Leaf().NotAfter.UTC().Format(time.RFC3339))
	}
}

// renew renews the certificate if it is time to, and returns how long to wait
// until the next look.
func (k *Keeper) renew(ctx context.Context) time.Duration {
	now, leaf := k.clock.Now(), k.credentials.Leaf()
	k.warn(now, leaf)
	due := k.dueTime(now, leaf)
	k.mu.Lock()
	connected, refused, waits, arrived := k.send != nil, k.refused, !k.waits.IsZero(), k.arrived
	if waits && k.anew { // a server that was not asked yet, or has forgotten it
		k.again = time.Time{}
	}
	if refused && k.unreached { // the pause was for a server that was away: it is back
		k.again, k.failures = time.Time{}, 0
	}
	k.anew, k.arrived = false, nil
	k.mu.Unlock()
	expired := now.After(leaf.NotAfter)
	late := !connected && (expired || refused)
	switch {
	case arrived != nil:
		return k.attempted(ctx, now, leaf, k.takeRaw(arrived))
	case now.Before(k.again):
		return wait(k.again.Sub(now))
	case !late && (!connected || now.Before(due)):
		next := due
		if now.After(due) { // and not connected: then that comes first
			next = leaf.NotAfter
		}
		return min(wait(next.Sub(now)), k.untilWarning(now, leaf))
	}
	return k.attempted(ctx, now, leaf, k.attempt(ctx, late))
}

// attempted takes what came of an attempt, and returns how long to wait until the next
// look.
func (k *Keeper) attempted(ctx context.Context, now time.Time, leaf *x509.Certificate, err error) time.Duration {
	if ctx.Err() != nil {
		return longest
	}
	var r *refusal
	var refused *enrol.Refused
	answered := errors.As(err, &r) || errors.As(err, &refused)
	k.unreached = err != nil && !answered
	if r != nil && r.reason == wire.ReasonWaiting {
		k.awaitOperator()
		k.failures, k.again = 0, now.Add(lastPause/2+share(lastPause/2))
		if at := lastChance(leaf); k.RenewKey && now.Before(at) && at.Before(k.again) {
			k.again = at
		}
		err = nil
	} else {
		k.mu.Lock()
		k.waits = time.Time{}
		k.mu.Unlock()
	}
	k.mu.Lock()
	k.last = err
	k.refused = false
	waits := !k.waits.IsZero()
	k.mu.Unlock()
	switch {
	case waits:
		return wait(k.again.Sub(now))
	case err != nil:
		k.again = now.Add(k.pause(leaf.NotAfter.Sub(now)))
		k.Log.Warn("certificate not renewed", "until", leaf.NotAfter.UTC().Format(time.RFC3339), "again", k.again.UTC().Format(time.RFC3339), "error", err)
		return wait(k.again.Sub(now))
	}
	return 0
}

// pause returns how long to wait after one more attempt that failed.
func (k *Keeper) pause(left time.Duration) time.Duration {
	d := min(firstPause<<min(k.failures, 16), lastPause)
	if k.failures++; left > 0 {
		d = max(min(d, left/10), time.Second)
	}
	return d/2 + share(d/2)
}

func wait(d time.Duration) time.Duration { return min(max(d, 0)+time.Millisecond, longest) }

// dueTime returns when the certificate is to be renewed: when two thirds of its life
// are over, and a random part of a tenth, so that a fleet that was enrolled in
// one hour does not come back in one. It is drawn once for each certificate.
func (k *Keeper) dueTime(now time.Time, leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if !k.dueOf.Equal(leaf.NotAfter) {
		k.dueOf, k.due = leaf.NotAfter, leaf.NotBefore.Add(life/3*2+share(life/10))
		k.again, k.failures = time.Time{}, 0
	}
	if issuing, other := k.elsewhere(); other && issuing != k.rushed {
		k.rushed = issuing // once: it may go on issuing in another's name
		if soon := now.Add(share(min(rushTime, life/10))); soon.Before(k.due) {
			k.due = soon
			k.Log.Info("the domain has another issuing authority now: the certificate is renewed soon", "at", k.due.UTC().Format(time.RFC3339))
		}
	}
	return k.due
}

// elsewhere reports whether another key than the issuing one has signed the
// certificate.
func (k *Keeper) elsewhere() (issuing identity.KeyHash, other bool) {
	k.mu.Lock()
	issuing = k.issuing
	k.mu.Unlock()
	if issuing.IsZero() {
		return issuing, false
	}
	above := k.credentials.Root()
	if held := k.credentials.Certificate().Certificate; len(held) > 1 {
		var err error
		if above, err = x509.ParseCertificate(held[1]); err != nil {
			return issuing, false
		}
	}
	return issuing, above == nil || identity.HashKey(above) != issuing
}

func share(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return mathrand.N(d)
}

// attempt renews once: over the connection to the server, or late, over the
// enrolment protocol.
func (k *Keeper) attempt(ctx context.Context, late bool) error {
	key, fresh, err := k.nextKey()
	if err != nil {
		return err
	}
	csr, err := identity.NewRequest(k.credentials.ID, key)
	if err != nil {
		return err
	}
	if fresh {
		k.renewing(identity.HashPublic(key.Public()))
	}
	var chain []*x509.Certificate
	if late {
		chain, err = k.askLate(ctx, csr)
	} else {
		chain, err = k.ask(ctx, csr)
	}
	if err != nil {
		return err
	}
	return k.take(chain, key, fresh)
}

// takeRaw takes a certificate that has come long after it was asked for: for the key of
// now or for the next one.
func (k *Keeper) takeRaw(raw [][]byte) error {
	chain, err := identity.ParseChain(raw)
	if err != nil {
		return fmt.Errorf("the certificate that the server gave: %w", err)
	}
	if identity.HashKey(chain[0]) == k.credentials.Key() {
		return k.take(chain, k.credentials.Certificate().PrivateKey.(crypto.Signer), false)
	}
	key, fresh, err := k.nextKey()
	if err != nil {
		return err
	}
	return k.take(chain, key, fresh)
}

// take puts a certificate in the place of the one of now.
func (k *Keeper) take(chain []*x509.Certificate, key crypto.Signer, fresh bool) error {
	next := identity.HashPublic(key.Public())
	at := k.clock.Now()
	if at.Before(chain[0].NotBefore) {
		at = chain[0].NotBefore // the clock of the server is a little ahead
	}
	if err := identity.CheckIssued(chain, k.credentials.Authorities(), k.credentials.ID, next, at); err != nil {
		return fmt.Errorf("the certificate that the server gave: %w", err)
	}
	if !chain[0].NotAfter.After(k.clock.Now()) {
		return fmt.Errorf("the certificate that the server gave ended at %s", chain[0].NotAfter.UTC().Format(time.RFC3339))
	}
	// What cannot be written is used all the same: it is what the server counts on.
	before := k.credentials.Key()
	werr := identity.ReplaceFile(k.Certificate, identity.EncodeCertificates(chain...), 0o644)
	if err := k.credentials.Renew(chain, key); err != nil {
		return err
	}
	if werr == nil && fresh {
		werr = k.moveKey()
	}
	if werr != nil {
		k.Log.Error("the new certificate is in use and not on disk: the next start will be with the old one", "error", werr)
	}
	k.Log.Info("certificate renewed", "until", chain[0].NotAfter.UTC().Format(time.RFC3339), "key", next.String(), "new_key", fresh)
	if k.hooks.Renewed != nil {
		k.hooks.Renewed(before)
	}
	return nil
}

// nextKey returns the key of the next certificate. A new one is on disk before
// anybody is asked for anything.
func (k *Keeper) nextKey() (key crypto.Signer, fresh bool, err error) {
	if !k.RenewKey || k.waitedTooLong() {
		return k.credentials.Certificate().PrivateKey.(crypto.Signer), false, nil
	}
	file := nextKey(k.Key)
	if exists(file) { // of an attempt that was interrupted: the server may know it already
		key, err = k.Keys.Load(file)
	} else {
		key, err = k.Keys.Make(file, k.Key)
	}
	return key, true, err
}

// renewing notes the key of the next certificate, which is a new one.
func (k *Keeper) renewing(next identity.KeyHash) {
	k.mu.Lock()
	k.next = next
	k.mu.Unlock()
	if k.hooks.Renewing != nil {
		k.hooks.Renewing(k.credentials.Key(), next)
	}
}

// waitedTooLong reports whether a certificate for a new key was waited for so long that
// the one that is held is renewed with its own key first: an operator who does not come
// must not cost the identity.
func (k *Keeper) waitedTooLong() bool {
	k.mu.Lock()
	waits := !k.waits.IsZero()
	k.mu.Unlock()
	return waits && !k.clock.Now().Before(lastChance(k.credentials.Leaf()))
}

// lastChance is from when on a certificate is renewed with any key: seven eighths of its
// life are over.
func lastChance(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 8)
}

// ask asks over the connection to the server.
func (k *Keeper) ask(ctx context.Context, csr []byte) ([]*x509.Certificate, error) {
	k.mu.Lock()
	if k.send == nil {
		k.mu.Unlock()
		return nil, errLost
	}
	k.asked++
	r := &request{number: k.asked, done: make(chan struct{})}
	k.request = r
	k.send(wire.Renew{Request: r.number, CSR: csr})
	k.mu.Unlock()
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		k.mu.Lock()
		r.answer(nil, fmt.Errorf("the server has not answered within %v", answerTime))
		k.mu.Unlock()
	case <-ctx.Done():
		k.mu.Lock()
		r.answer(nil, ctx.Err())
		k.mu.Unlock()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.request = nil
	if r.err != nil {
		return nil, r.err
	}
	chain, err := identity.ParseChain(r.chain)
	if err != nil {
		return nil, fmt.Errorf("the certificate that the server gave: %w", err)
	}
	return chain, nil
}

// askLate asks over the enrolment protocol, with the certificate that has expired.
func (k *Keeper) askLate(ctx context.Context, csr []byte) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := time.AfterFunc(lateTime, cancel)
	defer limit.Stop()
	client := enrol.Client{Software: k.Software, Now: k.clock.Now, Proxy: k.Proxy, Waiting: func(identity.KeyHash) {
		limit.Stop() // the server gives signs of life from now on
		k.awaitOperator()
		if k.hasty {
			cancel()
		}
	}}
	k.mu.Lock()
	k.leave = cancel
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.leave = nil
		k.mu.Unlock()
	}()
	var policy []ed25519.PublicKey
	if k.Policy != nil {
		policy = append(policy, k.Policy)
	}
	r, err := client.Renew(ctx, k.credentials, k.Servers(), policy, csr)
	if err != nil {
		return nil, err
	}
	if !r.Told.IsZero() {
		k.clock.Told(r.Told)
	}
	if k.Policy != nil {
		k.takeAuthorities(r.Authorities)
	}
	return r.Chain, nil
}
