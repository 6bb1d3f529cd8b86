package keeper

import (
	"crypto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

// TestRenewalWaitsForAnOperator: the server has nothing that signs, and says so. What is
// held goes on, nothing is an error, and what was signed is taken when it comes, long
// after it was asked for: over the connection that asked, or over the next.
func TestRenewalWaitsForAnOperator(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.RenewKey = fresh })
			r.connect()
			old := r.Credentials().Leaf()
			m, _ := r.waitAsked()
			r.handle(wire.RenewRefused{Request: m.Request, Reason: wire.ReasonWaiting, Text: "ca pending"})
			since := time.Now()
			r.wantPair(old)
			if s := r.Status(); s.Renewal != "" || !s.Waits.Equal(since.UTC()) && !s.Waits.Equal(since) || len(s.Lines()) != 1 {
				t.Errorf("status says %+v", s)
			}
			if log := r.logged(); strings.Contains(log, "level=WARN") || strings.Count(log, "waits until an operator") != 1 {
				t.Error(log)
			}
			// It asks again now and then, for the same key, and does not say it each time.
			again, after := r.waitAsked()
			if after < lastPause/3 || keyIn(r, again) != keyIn(r, m) {
				t.Errorf("asked again after %v, for the key %s, and before for %s", after, keyIn(r, again), keyIn(r, m))
			}
			r.handle(wire.RenewRefused{Request: again.Request, Reason: wire.ReasonWaiting})
			if strings.Count(r.logged(), "waits until an operator") != 1 {
				t.Error("it says again that it waits")
			}
			time.Sleep(10 * time.Minute)
			cert := r.issue(again, r.ca)
			r.wantPair(cert)
			if s := r.Status(); !s.Waits.IsZero() || len(s.Lines()) != 0 {
				t.Errorf("renewed, and status says %+v", s)
			}

			// The next one is signed while nobody is connected: who comes back asks at once.
			m, _ = r.waitAsked()
			r.handle(wire.RenewRefused{Request: m.Request, Reason: wire.ReasonWaiting})
			r.Lost()
			time.Sleep(time.Minute)
			r.connect()
			m, after = r.waitAsked()
			if after > 0 {
				t.Errorf("asked %v after it has come back", after)
			}
			// What comes for another request, or is of another, is not taken.
			r.handle(wire.RenewRefused{Request: m.Request, Reason: wire.ReasonWaiting})
			_, stranger := r.ca.Leaf(identity.Portal, "ann")
			r.handle(wire.Renewed{Request: m.Request + 1, Chain: [][]byte{r.ca.Issue(r.Credentials().ID, ownKey(r)).Raw}})
			r.wantPair(cert)
			r.handle(wire.Renewed{Request: m.Request, Chain: [][]byte{r.ca.Issue(r.Credentials().ID, stranger.Public()).Raw}})
			r.wantPair(cert)
			if !strings.Contains(r.logged(), "certificate not renewed") {
				t.Error("it is not said that what came is of no use")
			}
			m, _ = r.waitAsked()
			r.wantPair(r.issue(m, r.ca))
		})
	}
}

// TestIdentityOutlivesAnOperatorWhoDoesNotCome: a certificate for a new key is waited for
// until little is left of the one that is held. Then that is renewed with its own key, and
// the new one is asked for again in its time.
func TestIdentityOutlivesAnOperatorWhoDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.RenewKey = true })
		r.connect()
		leaf, own := r.Credentials().Leaf(), r.Credentials().Key()
		m, _ := r.waitAsked()
		next := keyIn(r, m)
		for ; keyIn(r, m) != own; m, _ = r.waitAsked() {
			if got := keyIn(r, m); got != next {
				t.Fatalf("asked for the key %s, and for %s before", got, next)
			}
			r.handle(wire.RenewRefused{Request: m.Request, Reason: wire.ReasonWaiting})
			if s := r.Status(); s.NextKey != next || s.Key != own || len(s.Lines()) != 1 {
				t.Fatalf("status says %+v", s)
			}
		}
		left, life := time.Until(leaf.NotAfter), leaf.NotAfter.Sub(leaf.NotBefore)
		if left < life/8-time.Hour || left > life/8 {
			t.Errorf("%v are left of %v when it asks with its own key", left, life)
		}
		r.wantPair(r.issue(m, r.ca))
		if s := r.Status(); s.Key != own || !s.NextKey.IsZero() {
			t.Errorf("status says %+v", s)
		}
		if m, _ = r.waitAsked(); keyIn(r, m) != next {
			t.Errorf("the next renewal is for the key %s, not for %s", keyIn(r, m), next)
		}
		r.wantPair(r.issue(m, r.ca))
		if r.Credentials().Key() != next {
			t.Error("it has another key")
		}
	})
}

func ownKey(r *rig) crypto.PublicKey { return r.Credentials().Leaf().PublicKey }

func keyIn(r *rig, m wire.Renew) identity.KeyHash {
	r.Helper()
	asked, err := identity.ParseRequest(m.CSR)
	r.must(err)
	return asked.Key
}
