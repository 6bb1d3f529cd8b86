package peers

import (
	"crypto/sha256"
	"time"

	"github.com/netport/netport/portal/internal/tunnel"
	"github.com/netport/netport/proto/identity"
	"github.com/netport/netport/proto/wire"
)

const (
	// keyGrace is how long carriers stay that were proven by a key which grants
	// have ceased to name, while others still join the two portals.
	keyGrace = 60 * time.Second
	// endGrace is how long carriers stay after their certificate's end. With the
	// time it takes to notice, that is within a minute.
	endGrace = 45 * time.Second
	// A carrier is made anew before its certificate ends: renewLead before, or a
	// tenth of the certificate's life if that is less. Where the peer still has no
	// other certificate, it is tried again after renewPause.
	renewLead  = 5 * time.Minute
	renewPause = time.Minute
	// reviewEvery is how often carriers are looked at at least: clocks are set.
	reviewEvery = time.Minute
	// maxProofs bounds the keys and certificates that are remembered of a peer.
	maxProofs = 64
)

// proofs is what is remembered of what a peer has proven itself with. The Pool's
// lock guards it.
//
//	named by a grant, certificate valid ---> kept
//	key no longer named, or certificate ends soon ---> made anew, streams move
//	keyGrace later, or endGrace after the end ---> dropped
//	revoked ---> the tunnel is closed
//
// Who was revoked or has no grant left opens nothing more in any case; this is
// about what is open.
type proofs struct {
	gone  map[identity.KeyHash]time.Time // since when no grant names a key
	tried map[[32]byte]time.Time         // when carriers of a certificate were to be made anew last
	own   time.Time                      // when this portal's certificate was renewed
}

// Review looks at what carriers were proven with: grants name other keys now, or
// something was revoked.
func (p *Pool) Review() {
	select {
	case p.doubts <- struct{}{}:
	default:
	}
}

// Renewed takes that this portal proves itself with another certificate from now
// on. Its carriers are made anew; what runs in them moves.
func (p *Pool) Renewed() {
	p.mu.Lock()
	for _, pr := range p.peers {
		pr.proofs.own = time.Now()
	}
	p.mu.Unlock()
	p.Review()
}

// keepProofs drops and replaces carriers by what they were proven with.
func (p *Pool) keepProofs() {
	timer := time.NewTimer(reviewEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.doubts:
		case <-p.tasks.ctx.Done():
			return
		}
		wait := reviewEvery
		for _, m := range p.members() {
			wait = min(wait, m.review(time.Now()))
		}
		timer.Reset(wait)
	}
}

// review judges the carriers of a tunnel and returns when to look again.
func (m *member) review(now time.Time) (wait time.Duration) {
	wait = reviewEvery
	p := m.pool
	m.aim()
	var revoked error
	old, good := false, false // are there direct carriers
	m.tunnel.Review(func(c tunnel.Proof) tunnel.Verdict {
		leaf := c.Chain[0]
		if err := p.Recheck(c.Chain); err != nil {
			revoked = err
			return tunnel.Keep
		}
		key := identity.HashKey(leaf)
		named, joined := p.Names(m.peer.name, key)
		p.mu.Lock()
		defer p.mu.Unlock()
		verdict, next := m.peer.proofs.judge(c, named || !joined, now, p.Credentials.Now())
		if verdict == tunnel.Drop {
			p.Log.Warn("carrier dropped", "peer", m.peer.name, "key", key.String(), "key-granted", named, "certificate-until", leaf.NotAfter)
		}
		wait = min(wait, next)
		if c.Direct {
			old, good = old || verdict == tunnel.Replace, good || verdict == tunnel.Keep
		}
		return verdict
	})
	p.mu.Lock()
	ways := m.ways
	p.mu.Unlock()
	if old && !good && ways != nil {
		ways.Replace()
	}
	if revoked != nil {
		// What runs in the tunnel is the revoked portal's, whatever else carries it.
		p.Log.Warn("tunnel with a revoked portal closed", "peer", m.peer.name, "error", revoked)
		m.tunnel.Close(wire.ReasonRevoked, "")
	}
	return max(wait, time.Millisecond)
}

// judge decides about one carrier, and returns when to look again. named says
// that its key is in order, now is for spans, and clock is the time that
// certificates are judged by.
//
// A carrier is made anew by the TLS client: it does that when its own certificate
// was renewed, or the server's is about to end; the server has only to wait.
func (s *proofs) judge(c tunnel.Proof, named bool, now, clock time.Time) (verdict tunnel.Verdict, next time.Duration) {
	leaf := c.Chain[0]
	left := leaf.NotAfter.Sub(clock)
	next = min(reviewEvery, left+endGrace)
	switch key := identity.HashKey(leaf); {
	case left <= -endGrace:
		return tunnel.Drop, reviewEvery
	case named:
		delete(s.gone, key)
	default:
		at, known := s.gone[key]
		if !known {
			at = now
			s.gone = remember(s.gone, key, now)
		}
		if now.Sub(at) >= keyGrace {
			return tunnel.Drop, reviewEvery
		}
		verdict, next = tunnel.Replace, min(next, at.Add(keyGrace).Sub(now))
	}
	lead := min(renewLead, leaf.NotAfter.Sub(leaf.NotBefore)/10)
	switch cert := sha256.Sum256(leaf.Raw); {
	case c.Since.Before(s.own):
		verdict = tunnel.Replace
	case left > lead:
		next = min(next, left-lead)
	default:
		at, known := s.tried[cert]
		if !known || now.Sub(at) >= renewPause {
			at = now
			s.tried = remember(s.tried, cert, now)
		}
		if !c.Since.After(at) {
			verdict = tunnel.Replace
		}
		next = min(next, at.Add(renewPause).Sub(now))
	}
	if !c.Client {
		verdict = tunnel.Keep
	}
	return verdict, next
}

// remember adds to a map that stays small: what was added first gives way.
func remember[K comparable](m map[K]time.Time, key K, at time.Time) map[K]time.Time {
	if m == nil {
		m = make(map[K]time.Time)
	}
	for len(m) >= maxProofs {
		var oldest K
		found := false
		for k, t := range m {
			if !found || t.Before(m[oldest]) {
				oldest, found = k, true
			}
		}
		delete(m, oldest)
	}
	m[key] = at
	return m
}

// Path reports how the tunnels to a peer go: over relays, directly where the peer answers,
// or both.
func (p *Pool) Path(peer string) (relayed, direct bool) {
	p.mu.Lock()
	var list []*member
	if pr := p.peers[peer]; pr != nil {
		list = append(list, pr.tunnels...)
	}
	p.mu.Unlock()
	for _, m := range list {
		for _, c := range m.tunnel.Stats().Each {
			relayed, direct = relayed || !c.Direct, direct || c.Direct && !c.Silent
		}
	}
	return relayed, direct
}
