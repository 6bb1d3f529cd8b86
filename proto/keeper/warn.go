package keeper

import (
	"crypto/x509"
	"time"
)

const day = 24 * time.Hour

// warnings returns how long before the end of a certificate it is spoken of, the
// first first. Renewal has begun before all of them: who is connected to a server
// that renews never hears of it.
func warnings(leaf *x509.Certificate) []time.Duration {
	list := []time.Duration{leaf.NotAfter.Sub(leaf.NotBefore) / 5}
	for _, d := range []time.Duration{7 * day, day, 0} {
		if d < list[len(list)-1] {
			list = append(list, d)
		}
	}
	return list
}

// warn speaks of the certificate's end, once at each of its warnings.
func (k *Keeper) warn(now time.Time, leaf *x509.Certificate) {
	if !k.warnedOf.Equal(leaf.NotAfter) {
		k.warnedOf, k.warned = leaf.NotAfter, leaf.NotAfter.Sub(leaf.NotBefore)
	}
	left := leaf.NotAfter.Sub(now)
	var reached time.Duration = -1
	for _, w := range warnings(leaf) {
		if left <= w && w < k.warned {
			reached = w
		}
	}
	if reached < 0 {
		return
	}
	k.warned = reached
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	if left < 0 {
		k.Log.Error("the certificate has expired and was not renewed: nobody takes it any more; have it renewed by a server, or join anew", "since", end)
		return
	}
	k.Log.Warn("the certificate expires soon and was not renewed yet", "at", end, "left", left.Round(time.Second))
}

// untilWarning returns how long it is until the next warning.
func (k *Keeper) untilWarning(now time.Time, leaf *x509.Certificate) time.Duration {
	next := longest
	for _, w := range warnings(leaf) {
		if d := leaf.NotAfter.Add(-w).Sub(now); d > 0 {
			next = min(next, wait(d))
		}
	}
	return next
}
