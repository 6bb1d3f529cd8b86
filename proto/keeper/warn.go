package keeper

import (
	"crypto/x509"
	"time"
)

const (
	day = 24 * time.Hour
	// earliest bounds how long before its end a certificate is first spoken of.
	earliest = 90 * day
)

// warnings returns how long before the end of a certificate it is spoken of, the
// first first: 30 days, 7 days and 1 day before, but not before it could have been
// renewed, and so at a fifth of its life where none of these is as early. Renewal has
// begun before all of them: who is connected to a server that renews never hears of it.
func warnings(c *x509.Certificate) []time.Duration {
	life := c.NotAfter.Sub(c.NotBefore)
	begun := life / 30 * 7 // is left when a renewal has begun (dueTime)
	list := []time.Duration{min(life/5, earliest)}
	for _, d := range []time.Duration{30 * day, 7 * day, day, 0} {
		switch last := list[len(list)-1]; {
		case d > begun || d == last:
		case len(list) == 1 && d > last:
			list[0] = d
		default:
			list = append(list, d)
		}
	}
	return list
}

// Soon reports whether the end of a certificate is near enough to be spoken of: it
// should have been renewed.
func Soon(now time.Time, c *x509.Certificate) bool {
	return !now.Before(c.NotAfter.Add(-warnings(c)[0]))
}

// Ending says when the end of a certificate is to be spoken of: some times before, and
// at its end. The zero Ending has spoken of none.
type Ending struct {
	warned time.Duration // before the end, of the last warning about
	of     time.Time     // a certificate that ends then
}

// Due reports whether it is time to speak of the end of a certificate, once for each of
// its times, and how long it has; below zero it has ended.
func (e *Ending) Due(now time.Time, c *x509.Certificate) (left time.Duration, due bool) {
	if !e.of.Equal(c.NotAfter) {
		e.of, e.warned = c.NotAfter, c.NotAfter.Sub(c.NotBefore)
	}
	left = c.NotAfter.Sub(now)
	for _, w := range warnings(c) {
		if left <= w && w < e.warned {
			e.warned, due = w, true
		}
	}
	return left, due
}

// warn speaks of the certificate's end, once at each of its warnings.
func (k *Keeper) warn(now time.Time, leaf *x509.Certificate) {
	left, due := k.ending.Due(now, leaf)
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case !due:
	case left < 0:
		k.Log.Error("the certificate has expired and was not renewed: nobody takes it any more; have it renewed by a server, or join anew", "since", end)
	default:
		k.Log.Warn("the certificate expires soon and was not renewed yet", "at", end, "left", left.Round(time.Second))
	}
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
