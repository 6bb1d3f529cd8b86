package tunnel

import (
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// Verdict is what becomes of a carrier, by what its peer has proven itself with.
type Verdict int

// The verdicts.
const (
	// Keep: nothing is wrong.
	Keep Verdict = iota
	// Replace: another carrier is made, with the certificates of now, and
	// everything moves there. Until there is one it stays.
	Replace
	// Drop: it is closed at once.
	Drop
)

var errProof = errors.New("what the peer has proven itself with on it holds no more")

// Proof is what a carrier was made with.
type Proof struct {
	Chain  []*x509.Certificate // what the peer has presented, its leaf first
	Client bool                // this portal is the TLS client, who makes carriers
	Direct bool                // it goes by no relay
	Since  time.Time           // from before this portal has shown its own certificate
}

// Review has judge decide about every carrier. judge must not call the tunnel.
func (t *Tunnel) Review(judge func(Proof) Verdict) {
	t.mu.Lock()
	links := slices.Clone(t.links)
	t.mu.Unlock()
	for _, l := range links {
		switch verdict := judge(Proof{l.conn.Chain(), l.conn.Client(), l.direct, l.conn.Since()}); verdict {
		case Drop:
			l.conn.Abort(errProof)
		default:
			t.renew(l, verdict == Replace)
		}
	}
}

// renew has a carrier left for another that is to be made, or left no more. A direct one is
// left when the other has come: until then all would go by a relay.
func (t *Tunnel) renew(l *link, wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case l.renew.Swap(wanted) == wanted:
		return
	case wanted && (l.direct || l.retire(time.Now())):
		t.cfg.Log.Info("carrier to be made anew", "session", l.conn.Session().String(), "carrier", l.conn.Connection(), "kind", l.conn.Kind().String(), "certificate-until", l.conn.Peer().NotAfter)
	case !wanted && !slices.Contains(t.leaving, l.conn.Session()):
		l.retired.Store(false)
	}
	t.changedLocked()
}

// renews reports whether others may be made by way of a carrier that is left.
func (l *link) renews() bool { return l.renew.Load() && !l.silent.Load() }
